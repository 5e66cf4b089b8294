"""``python -m vlaser_gym.convert``: see :mod:`vlaser_gym.commands.convert`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("convert")
