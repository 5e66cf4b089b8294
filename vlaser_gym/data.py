"""``python -m vlaser_gym.data``: see :mod:`vlaser_gym.commands.data`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("data")
