"""``python -m vlaser_gym.eval``: see :mod:`vlaser_gym.commands.eval`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("eval")
