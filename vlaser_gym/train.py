"""``python -m vlaser_gym.train``: see :mod:`vlaser_gym.commands.train`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("train")
