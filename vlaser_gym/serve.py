"""``python -m vlaser_gym.serve``: see :mod:`vlaser_gym.commands.serve`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("serve")
