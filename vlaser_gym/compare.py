"""``python -m vlaser_gym.compare``: see :mod:`vlaser_gym.commands.compare`."""

if __name__ == "__main__":
    from vlaser_gym.cli import start

    start("compare")
else:
    import sys

    from vlaser_gym import face

    # A submodule would hide the package's function of its name: whoever imports it finds the function.
    sys.modules[__name__] = face.compare  # type: ignore[assignment]
