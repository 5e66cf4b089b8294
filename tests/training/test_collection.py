"""Rounds of episodes to learn from."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from fabricate_run import TASKS, addresses, fabricate_run

from vlaser_gym.errors import StorageError
from vlaser_gym.training import collection
from vlaser_gym.training.collection import CollectRound


def test_rounds_that_began_in_another_simulator_do_not_go_on(tmp_path, monkeypatch):
    for name, engine in (("000", "mujoco"), ("001", "mujoco"), ("002", "maniskill")):
        fabricate_run(tmp_path / name, dict.fromkeys(addresses(layouts=1), True), engine=engine)
    monkeypatch.setattr(collection, "evaluate", lambda s, **_: SimpleNamespace(path=tmp_path / s.run, complete=True))
    source = CollectRound(tmp_path, TASKS, layouts=1, trials=1, engine={"name": "mujoco"})
    assert source(0, None) == [tmp_path / "000"]
    assert source(1, None) == [tmp_path / "001"]
    with pytest.raises(StorageError, match=r"began in mujoco 1, and 002 was run in maniskill 1, which moves otherwise"):
        source(2, None)
