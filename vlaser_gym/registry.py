"""Names that can be extended from outside, and objects by import string."""

from __future__ import annotations

import importlib
from typing import Any

from vlaser_gym.errors import InvalidConfigError


def import_string(text: str, key: str) -> Any:
    """The object that ``module:name`` stands for; ``key`` is the setting that an error is about.

    Raises:
        InvalidConfigError: if it cannot be imported.

    Example:
        >>> import_string("math:sqrt", "function")(9.0)
        3.0
    """
    module, colon, name = text.partition(":")
    try:
        if not colon:
            raise ValueError("there is no colon in it")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidConfigError(
            f"{key} must be importable, as module:name; got {text!r} ({error}); modules of the current folder and of "
            "installed packages are found."
        ) from error
    return found
