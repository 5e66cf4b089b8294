"""``python -m vlaser_gym.assets``: see :mod:`vlaser_gym.commands.assets`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("assets")
