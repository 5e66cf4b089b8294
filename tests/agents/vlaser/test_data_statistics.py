"""Data statistics: golden numbers of the original adapters, and the file."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.agents.vlaser.statistics import BRIDGE, FRACTAL, Statistics
from vlaser_gym.errors import InvalidConfigError


@pytest.mark.parametrize(
    ("statistics", "value", "expected"),
    [
        (BRIDGE, 0, [-0.00020863831, -0.00040086392, 0.00698575411, 0.00050514579, -0.00744340584, -0.00167284787]),
        (BRIDGE, 0.5, [0.01395681888, 0.02011472637, 0.02346732298, 0.04086215176, 0.03490019299, 0.1002338253]),
        (FRACTAL, 0, [-0.02314420179, 0.00059183173, -0.0065830797, 0.1187335588, -0.03328727663, 0.00576610073]),
    ],
    ids=["bridge zeros", "bridge halves", "fractal zeros"],
)
def test_golden_actions(statistics: Statistics, value: float, expected: list[float]) -> None:
    action = statistics.denormalize_action(np.full(7, value))
    np.testing.assert_allclose(action[:6], expected, rtol=0, atol=1e-10)
    assert action[6] == value


@pytest.mark.parametrize(
    ("statistics", "raw", "expected"),
    [
        (
            BRIDGE,
            [0.3, 0.03, 0.07, 0.01, -0.08, 0.1, 0.7],
            [-0.08105175, -0.01297918, -0.01014655, 0.00912113, 0.12953332, -0.09023402, 0.35188675],
        ),
        (
            FRACTAL,
            [0.56, -0.08, 0.78, -0.25, 0.5, 0.09, 0.21, 0.43],
            [-0.14509121, -0.17976043, 0.37162192, -0.46255668, 0.44257789, 0.09819577, 0.12991393, -0.14],
        ),
    ],
    ids=["bridge", "fractal"],
)
def test_golden_proprioception(statistics: Statistics, raw: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(statistics.proprio.normalize(raw), expected, rtol=0, atol=2e-7)


def test_open_widowx_gripper_is_not_quite_one() -> None:
    assert BRIDGE.proprio.normalize([0, 0, 0, 0, 0, 0, 1.0])[6] == pytest.approx(0.978, abs=5e-4)


def test_proprioception_is_clipped() -> None:
    assert (BRIDGE.proprio.normalize(np.full((2, 7), 9.0)) == 1).all()
    assert (FRACTAL.proprio.normalize(np.full((2, 8), -9.0)) == -1).all()


def test_actions_come_back() -> None:
    action = np.random.default_rng(0).uniform(-1, 1, (50, 7))
    back = FRACTAL.normalize_action(FRACTAL.denormalize_action(action))
    np.testing.assert_allclose(back, action, atol=1e-6)


def test_labels_are_clipped_except_the_gripper() -> None:
    np.testing.assert_array_equal(BRIDGE.normalize_action(np.full(7, 9.0)), [1, 1, 1, 1, 1, 1, 9])


def test_file_round_trip_and_layout(tmp_path: Path) -> None:
    FRACTAL.save(tmp_path)
    assert Statistics.load(tmp_path) == FRACTAL
    data = json.loads((tmp_path / "statistics.json").read_text())
    assert set(data) == {"action", "proprio", "num_transitions", "num_trajectories"}
    assert set(data["action"]) == set(data["proprio"]) == {"mean", "std", "max", "min", "p99", "p01"}
    assert data["num_transitions"] == 3_786_400


@pytest.mark.parametrize("damage", ["absent", "json", "key", "length"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    BRIDGE.save(tmp_path)
    file = tmp_path / "statistics.json"
    data = json.loads(file.read_text())
    if damage == "absent":
        file.unlink()
    elif damage == "json":
        file.write_text(file.read_text()[:100])
    elif damage == "key":
        del data["action"]["p99"]
        file.write_text(json.dumps(data))
    else:
        data["proprio"]["mean"].pop()
        file.write_text(json.dumps(data))
    with pytest.raises(InvalidConfigError, match="should hold data statistics"):
        Statistics.load(tmp_path)
