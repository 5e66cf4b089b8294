"""``python -m vlaser_gym.compare``: see :mod:`vlaser_gym.commands.compare`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("compare")
