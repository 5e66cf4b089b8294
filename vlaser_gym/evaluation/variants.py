"""Variants of a scene against its base, paired layout by layout within one run.

The base is the uncoloured robot of visual matching, or the plain scene of variant aggregation. An episode of a variant
is paired with that of the base on the same task, layout and trial, and tested as
:mod:`vlaser_gym.evaluation.comparison` tests two runs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks.protocols import base_variant
from vlaser_gym.evaluation.comparison import StoredRun, TaskDifference, compare_runs
from vlaser_gym.evaluation.store import Record, read_config

Records = Mapping[Address, Record]


@dataclass(frozen=True)
class VariantChange:
    """The paired change of success from the base scene to a variant.

    Attributes:
        variant: its name.
        base: name of the scene that it departs from.
        tasks: a row per task that has the variant; A is the base, B the variant.
        overall: all of them, unweighted; p-values are corrected among the variants of one base.
    """

    variant: str
    base: str
    tasks: tuple[TaskDifference, ...]
    overall: TaskDifference


def variant_changes(path: Path, records: Records) -> list[VariantChange]:
    """A row for each variant of which a run holds episodes whose partner in the base scene it holds too.

    Args:
        path: of the run.
        records: its episodes.

    Returns:
        Rows in the order of the variants' first episodes by address; empty for a run of one variant.
    """
    variants: dict[str, dict[Address, Record]] = {}
    for address in sorted(records, key=lambda address: address.sort_key):
        variants.setdefault(address.variant, {})[address] = records[address]
    config = read_config(path)
    changes = []
    for base in dict.fromkeys(map(base_variant, variants)):
        of_base = variants.get(base, {})
        arms = [
            StoredRun(path, variant, config, moved)
            for variant, mine in variants.items()
            if variant != base and base_variant(variant) == base
            if (moved := _paired(mine, of_base))
        ]
        if arms:
            compared = compare_runs([StoredRun(path, base, config, of_base), *arms])
            changes += [VariantChange(two.b, base, two.tasks, two.overall) for two in compared.against]
    return changes


def _paired(records: Records, base: Records) -> dict[Address, Record]:
    """The episodes of a variant by the addresses of their partners, as far as these are there."""
    partners = {replace(address, variant=base_variant(address.variant)): r for address, r in records.items()}
    return {address: record for address, record in partners.items() if address in base}
