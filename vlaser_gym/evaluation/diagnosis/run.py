"""The diagnoses of a stored run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.diagnosis.rules import Diagnosis, diagnose
from vlaser_gym.evaluation.store import Record, read_states


def diagnose_run(path: str | Path, records: Mapping[Address, Record]) -> dict[Address, Diagnosis]:
    """The diagnosis of every episode of a run; "unknown" for those with damaged states.

    Args:
        path: the run directory.
        records: the episodes to look at.
    """
    found = {}
    for address, record in records.items():
        try:
            states = None if record["states"] is None else read_states(path, record)
        except StorageError:
            states = None
        found[address] = diagnose(record, states)
    return found
