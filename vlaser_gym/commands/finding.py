"""A line of the doctor's report."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One line of the report.

    Attributes:
        works: whether it does.
        text: what was found.
        remedy: what to do where it does not work.
        needed: whether the default evaluation needs it, or the user asked for it.
    """

    name: str
    works: bool
    text: str
    remedy: str = ""
    needed: bool = True
