"""``python -m vlaser_gym.doctor``: see :mod:`vlaser_gym.commands.doctor`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("doctor")
