"""``python -m vlaser_gym.render``: see :mod:`vlaser_gym.commands.render`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("render")
