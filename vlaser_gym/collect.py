"""``python -m vlaser_gym.collect``: see :mod:`vlaser_gym.commands.collect`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("collect")
else:
    import sys

    from vlaser_gym import face

    # A submodule would hide the package's function of its name: whoever imports it finds the function.
    sys.modules[__name__] = face.collect  # type: ignore[assignment]
