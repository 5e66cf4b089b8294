"""``python -m vlaser_gym.verify``: see :mod:`vlaser_gym.commands.verify`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("verify")
