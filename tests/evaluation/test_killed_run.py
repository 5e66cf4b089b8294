"""A run directory's writer dies at every point; see ``tests/killed.py``. The whole takes a few seconds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from killed import contents, every_point
from test_store import ADDRESSES, CONFIG, record, states, summary

from vlaser_gym.evaluation import store as store_module
from vlaser_gym.evaluation.store import RunStore
from vlaser_gym.storage import files


class AtOnce:
    """A :class:`~vlaser_gym.storage.syncer.Syncer` without a thread, so that points come in one order."""

    cpu_seconds = 0.0

    def add(self, *paths: Path) -> None:
        for path in paths:
            files.bring_to_disk(path)

    def wait(self) -> None: ...

    close = wait


def write(folder: Path) -> None:
    with RunStore(folder / "run", CONFIG) as store:
        for number, address in enumerate(ADDRESSES):
            if address not in store.records:
                store.add(record(address), states(number), {"chain": states(number)["qpos"]} if number == 1 else None)
        store.finish(summary(a=1, b=2))


@pytest.mark.slow
def test_a_run_directory_survives_death_at_every_point(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, record_property: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr(store_module, "Syncer", AtOnce)
    deaths = every_point(write, tmp_path, contents)
    record_property("deaths", deaths)
    assert deaths > 40
