"""``python -m vlaser_gym.ask``: see :mod:`vlaser_gym.commands.ask`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("ask")
