"""Changes between two runs: episodes mended, episodes broken, failures of another class."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.diagnosis.rules import Diagnosis


@dataclass(frozen=True)
class ClassChange:
    """The episodes of one failure class in two runs.

    Attributes:
        failure: key of the class.
        a, b: episodes that failed so.
        mended: of those of A, successes of B.
        broken: of those of B, successes of A.
        became: of those of A, failures of B of another class, by that class.
    """

    failure: str
    a: int
    b: int
    mended: int
    broken: int
    became: Mapping[str, int]


def class_changes(a: Mapping[Address, Diagnosis], b: Mapping[Address, Diagnosis]) -> list[ClassChange]:
    """Changes of each class that either run has, the most frequent first; of the episodes that both hold."""
    pairs = [(a[address].failure, b[address].failure) for address in a if address in b]
    seen = Counter(failure for pair in pairs for failure in pair if failure)
    return [
        ClassChange(
            failure,
            sum(one == failure for one, _ in pairs),
            sum(other == failure for _, other in pairs),
            sum(one == failure and not other for one, other in pairs),
            sum(not one and other == failure for one, other in pairs),
            Counter(other for one, other in pairs if one == failure and other not in ("", failure)),
        )
        for failure, _ in seen.most_common()
    ]


def layout_changes(a: Mapping[Address, Diagnosis], b: Mapping[Address, Diagnosis]) -> dict[str, dict[str, list[str]]]:
    """Task -> ``mended``, ``broken``, ``changed`` (another class) -> layouts in which that happened, in their order."""
    tasks: dict[str, dict[str, list[str]]] = {}
    for address in sorted(set(a) & set(b), key=lambda address: address.sort_key):
        one, other = a[address].failure, b[address].failure
        if one == other:
            continue
        what = "broken" if not one else "mended" if not other else "changed"
        lists = tasks.setdefault(address.task, {"mended": [], "broken": [], "changed": []})
        if address.layout not in lists[what]:
            lists[what].append(address.layout)
    return tasks
