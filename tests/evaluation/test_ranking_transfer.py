"""Rankings of policies on two simulators: figures by hand, and a small run."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from vlaser_gym.agents.believing import BelievingExpert
from vlaser_gym.cli import load
from vlaser_gym.commands import parity
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.transfer import BELIEFS, Key, Trial, compare_sides, drawn_trials, recorded_trials, run_trials
from vlaser_gym.evaluation.transfer_videos import BesideVideos, Side, States, recorded_states

HALVES = (slice(0, 640), slice(640, 1280))
SPOON, CUBE = "widowx_spoon_on_towel", "widowx_stack_cube"


def address(task: str, index: int) -> Address:
    return Address(task, "default", f"grid:{index}")


def outcomes(table: dict[float, str]) -> dict[Key, bool]:
    """Belief -> letters of four episodes (two of each task), 1 for a success."""
    places = [address(task, index) for task in (SPOON, CUBE) for index in (0, 1)]
    return {(belief, p): letter == "1" for belief, row in table.items() for p, letter in zip(places, row, strict=True)}


def test_figures_by_hand() -> None:
    """Rates 1, 0.5, 0 against 0.75, 0.75, 0: by SimplerEnv's rule the tie counts for the better one alone."""
    a = outcomes({0.0: "1111", 0.01: "1100", 0.03: "0000"})
    b = outcomes({0.0: "1110", 0.01: "1101", 0.03: "0000"})
    found = compare_sides("a", "b", a, b)
    assert (found.n, found.only_a, found.only_b, found.p) == (12, 1, 1, 1.0)
    assert found.agreement == pytest.approx(10 / 12)
    assert found.rates_a == (1.0, 0.5, 0.0)
    assert found.rates_b == (0.75, 0.75, 0.0)
    assert found.pearson == pytest.approx(np.corrcoef([1, 0.5, 0], [0.75, 0.75, 0])[0, 1], abs=1e-6)
    assert found.mmrv == pytest.approx((0.5 + 0.0 + 0.0) / 3)
    theirs, ours = [1, 1, 1, 0, 0, 0], [1, 0.5, 1, 0.5, 0, 0]
    assert found.cell_pearson == pytest.approx(np.corrcoef(theirs, ours)[0, 1], abs=1e-6)
    assert found.pearson_interval[0] <= found.pearson <= found.pearson_interval[1] + 1e-9
    assert found.disagreements == (
        (0.0, "widowx_stack_cube/default/grid:1/0", "a"), (0.01, "widowx_stack_cube/default/grid:1/0", "b"),
    )  # fmt: skip
    same = compare_sides("a", "a", a, a)
    assert (same.pearson, same.mmrv, same.agreement, same.disagreements) == (pytest.approx(1), 0, 1, ())
    assert same.mmrv_interval == (0, 0)
    a.pop((0.0, address(SPOON, 0)))
    with pytest.raises(InvalidConfigError, match="they share 11 of 4 addresses and 3 policies"):
        compare_sides("a", "b", a, b)


def test_beliefs_grow_in_proportion_and_reach_the_expert() -> None:
    where = address(SPOON, 3)
    small, large = BelievingExpert(0.01).errors_of(where), BelievingExpert(0.03).errors_of(where)
    np.testing.assert_allclose(large, 3 * small)
    many = np.array([BelievingExpert(0.01).errors_of(address(SPOON, index)) for index in range(2000)])
    np.testing.assert_allclose(many.std(0), [[0.01, 0.01, 0.01 / 3]] * 2, rtol=0.1)
    with pytest.raises(InvalidConfigError, match="0 m or more; got -1"):
        BelievingExpert(-1)


def test_recorded_episodes_are_read(tmp_path: Path) -> None:
    row = {"task": SPOON, "layout": "grid:4", "belief_sigma_m": 0.01, "success": True}
    row |= {"source_error_m": [0.1, 0.2, 0.3], "target_error_m": [0, 0, 0]}
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "index.json").write_text(json.dumps({"x": row}))
    trials, ended = recorded_trials(tmp_path, [SPOON, CUBE])
    assert trials == [Trial(0.01, address(SPOON, 4), ((0.1, 0.2, 0.3), (0, 0, 0)))]
    assert ended == {(0.01, address(SPOON, 4)): True}
    with pytest.raises(InvalidConfigError, match="no recorded episodes of widowx_stack_cube"):
        recorded_trials(tmp_path, [CUBE])


@pytest.mark.slow
def test_a_small_run_and_a_wrong_belief_that_misses() -> None:
    right, *_ = drawn_trials([CUBE], 1, (0.0,))
    wrong = Trial(0.03, right.address, ((0.1, 0.0, 0.0), (0.0, 0.0, 0.0)))
    told = []
    found = run_trials(
        [right, wrong], "mujoco", None, {}, lanes=2, on_episode=lambda trial, result: told.append((trial, result.steps))
    )
    assert found == {right.key: True, wrong.key: False}
    assert told == [(right, 60), (wrong, 60)]


@pytest.mark.slow
def test_a_checkpoint_is_ranked_beside_the_experts_with_a_video_of_each_disagreement(tmp_path: Path) -> None:
    """Against itself in another look the expert, which sees nothing, agrees; nano may not, and is shown."""
    output, videos = tmp_path / "figures.json", tmp_path / "videos"
    words = ["figures=ranking", f"task={CUBE}", "engines=mujoco", "checkpoints=nano", "episodes=2", "num_envs=2"]
    words += ["engine.threads=1", "engine.image_size=16x12", f"output={output}", f"videos={videos}"]
    parity.main(load("parity", words))
    (found,) = json.loads(output.read_text())["ranking"]
    assert found["policies"] == [*BELIEFS, "nano"]
    assert (found["a"], found["b"], found["n"]) == ("mujoco", "mujoco/builtin", 14)
    assert found["rates_a"][:-1] == found["rates_b"][:-1]
    assert {policy for policy, *_ in found["disagreements"]} <= {"nano"}
    assert len(list(videos.glob("nano.*.mp4"))) == len(found["disagreements"]) == found["only_a"] + found["only_b"]


@pytest.mark.slow
def test_a_video_shows_both_sides_beside_each_other(tmp_path: Path) -> None:
    trial = Trial(0.0, address(CUBE, 2))
    states: list[States] = []
    run_trials([trial], "mujoco", None, {}, 1, lambda _, result: states.append(result.trajectory))
    short = {name: values[:3] for name, values in states[0].items()}
    with BesideVideos(tmp_path) as videos:
        sides = Side("a", "builtin", short, False), Side("b", "builtin", states[0], True)
        file = videos.write(trial.key, sides)
    assert file.name == f"0mm.{CUBE}.grid-2.trial-0.mp4"
    video = cv2.VideoCapture(str(file))
    frames = [video.read()[1].astype(int) for _ in range(int(video.get(cv2.CAP_PROP_FRAME_COUNT)))]
    assert (len(frames), frames[0].shape[1]) == (61, 1280)
    left, right = (np.abs(frames[-1][:480, half] - frames[2][:480, half]).mean() for half in HALVES)
    assert right > 4 * left, "the shorter one stands still"


def test_recorded_states_have_our_names(tmp_path: Path) -> None:
    row = {"task": SPOON, "layout": "grid:4", "belief_sigma_m": 0.01, "success": True}
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "index.json").write_text(json.dumps({"x": row}))
    np.savez(tmp_path / "ranking" / "x.npz", **{"qpos": np.zeros((3, 8)), "object.spoon": np.ones((3, 7))})
    found = recorded_states(tmp_path, (0.01, address(SPOON, 4)))
    assert {name: values.shape for name, values in found.items()} == {
        **{"qpos": (3, 8), "object/spoon": (3, 7), "base_pose": (3, 7)}
    }
    np.testing.assert_allclose(found["base_pose"][2], [0.147, 0.028, 0.870, 0, 0, 0, 1])
    assert recorded_states(tmp_path, (0.02, address(SPOON, 4))) == {}


def test_checkpoints_need_engines_and_their_own_robot() -> None:
    with pytest.raises(InvalidConfigError, match="recorded episodes are experts' alone: name the engines"):
        parity.main(load("parity", ["figures=ranking", "checkpoints=nano"]))
    google = drawn_trials(["google_robot_pick_coke_can"], 1, ("nano",))
    with pytest.raises(InvalidConfigError, match=r"nano is for widowx; the tasks are of google_robot: choose tasks"):
        run_trials(google, "mujoco", None, {})
