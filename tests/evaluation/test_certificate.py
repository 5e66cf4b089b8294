"""The recorded episodes that are shipped: drawn from the recordings, and few."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from draw_certificate import drawn

from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.certificate import CERTIFICATE, Departure, recorded_episodes


def test_a_few_kilobytes_of_every_kind_of_scene() -> None:
    assert CERTIFICATE.stat().st_size < 16_000
    episodes = recorded_episodes()
    tasks = [get_task(episode.task) for episode in episodes]
    assert {task.scenery for task in tasks} == {"bridge_table", "bridge_sink", "google_table", "google_cabinet"}
    assert {episode.flags["success"] for episode in episodes} == {True, False}
    for task, episode in zip(tasks, episodes, strict=True):
        assert set(episode.flags) == set(task.flags)
        assert len(episode.actions) <= task.max_steps
        assert len(episode.tcp) == len(episode.thing) == -(-len(episode.actions) // 8) + 1


@pytest.mark.golden
def test_it_is_what_was_recorded(golden: Path) -> None:
    with np.load(io.BytesIO(drawn(golden))) as again, np.load(CERTIFICATE) as shipped:
        assert set(again.files) == set(shipped.files) == {"index", "actions", "states"}
        for name in again.files:
            assert np.array_equal(again[name], shipped[name])


@pytest.mark.parametrize(("tcp", "thing", "flags", "said"), [
    (0.005, 0.02, (), []),
    (0.0061, 0.0, (), ["the TCP is 6.1 mm off its path"]),
    (float("nan"), 0.3, (), ["the TCP is nan mm off its path", "the manipulated thing is 300 mm off its path"]),
    (0.0, 0.0, ("success",), ["success ends otherwise"]),
])  # fmt: skip
def test_what_departs(tcp: float, thing: float, flags: tuple[str, ...], said: list[str]) -> None:
    assert Departure(tcp, thing, flags).phrases == said
