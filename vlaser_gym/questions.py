"""``python -m vlaser_gym.questions``: see :mod:`vlaser_gym.commands.questions`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("questions")
