"""``python -m vlaser_gym.recipe``: see :mod:`vlaser_gym.commands.recipe`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("recipe")
