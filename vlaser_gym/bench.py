"""``python -m vlaser_gym.bench``: see :mod:`vlaser_gym.commands.bench`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("bench")
