"""Fidelity of the built-in engine: the figures of docs/parity.md, as bounds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import resolve
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.evaluation.parity import Recordings, Simulator, project, robot_figures, task_figures

pytestmark = pytest.mark.golden


@pytest.fixture(scope="module")
def figures(golden: Path) -> dict[str, dict]:
    recordings = Recordings(golden)
    return {name: task_figures(recordings, name, Simulator("mujoco")) for name in resolve("widowx")}


@pytest.mark.parametrize("task", resolve("widowx"))
def test_initial_states_and_projections(figures: dict[str, dict], task: str) -> None:
    row = figures[task]
    assert row["object_mm"] < 1
    assert row["object_deg"] < 0.5
    assert row["tcp_mm"] < 1
    assert row["tcp_deg"] < 0.5
    assert row["projection_px"] < 2


def test_recorded_successes_are_recalled_and_none_is_false(figures: dict[str, dict]) -> None:
    recalled = sum(row["recalled"] for row in figures.values())
    successes = sum(row["successes"] for row in figures.values())
    assert successes == 16
    assert recalled >= 0.8 * successes
    assert sum(row["failures"] for row in figures.values()) == 12
    assert sum(row["false_successes"] for row in figures.values()) == 0


def test_motion_follows_the_original(golden: Path) -> None:
    row = robot_figures(Recordings(golden), "widowx", Simulator("mujoco"))
    assert row["response_mm"] < 0.5
    assert [free["sequence"] for free in row["free"]] == ["00", "01", "02", "06", "08"]
    for free in row["free"]:
        assert free["rms_mm"] < 1, free
        assert free["rms_deg"] < 0.5, free


def test_a_point_ahead_lands_in_the_middle() -> None:
    camera = get_setup("widowx").camera
    pose = np.array([0.0, 0, 0, 1, 0, 0, 0])
    from vlaser_gym.envs import transforms

    ahead = transforms.compose(camera.pose, [2.0, 0, 0, 1, 0, 0, 0])[None, :3]
    np.testing.assert_allclose(project(camera, pose, ahead)[0], [camera.cx, camera.cy], atol=1e-9)
    left = transforms.compose(camera.pose, [2.0, 0.1, 0, 1, 0, 0, 0])[None, :3]
    assert project(camera, pose, left)[0, 0] == pytest.approx(camera.cx - 0.05 * camera.focal)


def test_missing_recordings_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match="golden=PATH"):
        Recordings(tmp_path)
