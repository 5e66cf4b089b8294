"""``python -m vlaser_gym.collect``: see :mod:`vlaser_gym.commands.collect`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("collect")
