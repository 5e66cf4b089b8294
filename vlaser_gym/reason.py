"""``python -m vlaser_gym.reason``: see :mod:`vlaser_gym.commands.reason`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("reason")
