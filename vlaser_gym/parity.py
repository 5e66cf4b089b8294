"""``python -m vlaser_gym.parity``: see :mod:`vlaser_gym.commands.parity`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("parity")
