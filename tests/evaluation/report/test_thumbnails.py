from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate_run import plain_record
from PIL import Image

from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.report import thumbnails
from vlaser_gym.evaluation.store import RunStore, read_records


class FakeRenderer:
    """Paints the first joint position as a grey level."""

    made: list[str]

    def __init__(self, look: str, batch: int, processes: int | None) -> None:
        FakeRenderer.made.append(look)
        self.batch = batch

    def frames(self, task: str, variant: str, states: Sequence[Any]) -> np.ndarray:
        assert len(states) <= self.batch
        assert all(set(state) == {"qpos", "object/carrot"} for state in states)
        return np.stack([np.full((480, 640, 3), int(state["qpos"][0]), np.uint8) for state in states])

    def close(self) -> None:
        FakeRenderer.made.append("closed")


def test_each_episode_shows_its_last_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    FakeRenderer.made = []
    monkeypatch.setattr(thumbnails, "SceneRenderer", FakeRenderer)
    where = [Address(task, layout=f"grid:{k}") for task in ("a", "b") for k in range(20)]
    with RunStore(tmp_path / "run", {}) as store:
        for k, address in enumerate(where):
            record = plain_record(address, look="painted")
            states = {"qpos": np.full((3, 2), 0.0), "object/carrot": np.zeros((3, 7)), "action": np.zeros((2, 7))}
            states["qpos"][-1] = 5 * k
            store.add(record, states if k else None)
    found = thumbnails.render_thumbnails(tmp_path / "run", read_records(tmp_path / "run"))
    assert list(found) == where[1:], "the first has no states"
    for k, address in enumerate(where[1:], 1):
        picture = Image.open(io.BytesIO(found[address]))
        assert (picture.size, picture.format) == ((208, 156), "JPEG")
        assert np.asarray(picture).mean() == pytest.approx(5 * k, abs=2)
    assert FakeRenderer.made == ["builtin", "closed"], "a look that is not ours is shown in the built-in one"
    assert thumbnails.render_thumbnails(tmp_path / "run", []) == {}
