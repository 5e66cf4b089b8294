"""LeRobot itself, in an environment of its own (``--neighbours``): trained on our data, scored here and there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.evaluation.store import read_records, read_states

pytestmark = pytest.mark.long

ROOT = Path(__file__).resolve().parents[2]
NEIGHBOURS = ROOT / "tests" / "neighbours"
TASKS = ("widowx_spoon_on_towel", "widowx_carrot_on_plate")
#: Of ACT, so that it is small and fetches nothing.
SMALL = {
    **{"dim_model": 64, "n_heads": 2, "dim_feedforward": 64, "n_encoder_layers": 1, "n_vae_encoder_layers": 1},
    **{"chunk_size": 8, "n_action_steps": 4, "pretrained_backbone_weights": "null", "push_to_hub": "false"},
}


@pytest.fixture(scope="module", name="lerobot")
def _lerobot(neighbour: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    """``lerobot("-m", "lerobot.scripts.lerobot_eval", ...)``: what it said, there, with this gym and its plugin."""
    python, folder = neighbour("lerobot", version="3.12"), tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(ROOT / "plugins" / "lerobot_env_vlaser_gym", folder / "source")
    install = ["-m", "pip", "install", "-q", "--no-deps", "--no-build-isolation", "--target", folder / "installed"]
    subprocess.run([python, *install, source], check=True)
    paths = os.pathsep.join(map(str, (folder / "installed", ROOT, Path(__file__).parent)))
    variables = {**os.environ, "PYTHONPATH": paths, "HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hub")}

    def run(*command: Any) -> str:
        done = subprocess.run(
            [python, *map(str, command)], cwd=folder, env=variables, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{done.stdout[-4000:]}\n{done.stderr[-8000:]}"
        return done.stdout + done.stderr

    return run


@pytest.fixture(scope="module", name="act")
def _act(lerobot: Callable[..., str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of an ACT that ``lerobot-train`` trained for four steps on a set of ``collect``."""
    folder = tmp_path_factory.mktemp("act")
    collect = ["-m", "vlaser_gym.collect", f"task={TASKS[0]}", "episodes=6", "every=4", "image_size=96"]
    lerobot(*collect, f"output={folder / 'set'}", "num_envs=2")
    train = {
        **{"policy.type": "act", "policy.device": "cpu", **{f"policy.{key}": value for key, value in SMALL.items()}},
        **{"dataset.repo_id": "here/set", "dataset.root": folder / "set", "output_dir": folder / "train"},
        **{"batch_size": 2, "steps": 4, "save_freq": 4, "log_freq": 1, "num_workers": 0, "env_eval_freq": 0, "seed": 1},
    }
    lerobot("-m", "lerobot.scripts.lerobot_train", *(f"--{key}={value}" for key, value in train.items()))
    return folder / "train" / "checkpoints" / "last" / "pretrained_model"


def test_lerobot_trains_on_our_data_from_image_and_state_alone(act: Path) -> None:
    config = json.loads((act / "config.json").read_text())
    assert {key: (of["type"], of["shape"]) for key, of in config["input_features"].items()} == {
        "observation.images.main": ("VISUAL", [3, 96, 96]),
        "observation.state": ("STATE", [8]),
    }
    assert {key: of["shape"] for key, of in config["output_features"].items()} == {"action": [7]}


def test_its_policy_acts_here_as_in_lerobot_eval(act: Path, lerobot: Callable[..., str], tmp_path: Path) -> None:
    """Both sides in LeRobot's environment: every action of two tasks' two first layouts is equal, and who succeeds."""
    run = tmp_path / "run"
    evaluate = ["-m", "vlaser_gym.eval", "agent=lerobot", f"checkpoint={act}", f"task=[{','.join(TASKS)}]"]
    lerobot(*evaluate, "episodes=2", "num_envs=2", "video=0", "report=false", f"run={run}")
    here = read_records(run)
    score = {
        **{"policy.path": act, "policy.device": "cpu", "env.type": "vlaser_gym", "env.task": ",".join(TASKS)},
        **{"env.image_size": 96, "eval.n_episodes": 2, "eval.batch_size": 1, "seed": 0, "output_dir": tmp_path / "out"},
    }
    options = [f"--{key}={value}" for key, value in score.items()]
    lerobot(NEIGHBOURS / "eval_by_lerobot.py", tmp_path / "told.json", *options)
    told = json.loads((tmp_path / "told.json").read_text())
    addresses = [f"{record['task']}/default/{record['layout']}/0" for record in here]
    assert sorted(told) == sorted(addresses)
    for record, address in zip(here, addresses, strict=True):
        np.testing.assert_array_equal(told[address], read_states(run, record)["action"])
    there = json.loads((tmp_path / "out" / "eval_info.json").read_text())
    for task, scored in zip(TASKS, sorted(there["per_task"], key=lambda task: task["task_id"]), strict=True):
        assert scored["metrics"]["successes"] == [record["success"] for record in here if record["task"] == task]
        assert len(scored["metrics"]["video_paths"]) == 2


def test_several_scenes_at_once_and_a_recording(act: Path, lerobot: Callable[..., str], tmp_path: Path) -> None:
    """Processes of their own, as ``lerobot-eval`` makes them by default; what it records we read."""
    score = {
        **{"policy.path": act, "policy.device": "cpu", "env.type": "vlaser_gym", "env.task": TASKS[1]},
        **{"env.image_size": 96, "eval.n_episodes": 2, "eval.batch_size": 2, "eval.recording": "true", "seed": 0},
        "env.max_episode_steps": 12,
    }
    options = [f"--{key}={value}" for key, value in score.items()]
    lerobot("-m", "lerobot.scripts.lerobot_eval", *options, f"--output_dir={tmp_path / 'out'}")
    folders = sorted({file.parents[1] for file in (tmp_path / "out").rglob("meta/info.json")})
    assert len(folders) == 2
    for folder in folders:
        reader = LeRobotReader(folder)
        assert [row["length"] for row in reader.episodes] == [12]
        assert reader.camera == "observation.images.main"


@pytest.mark.parametrize("kind", ["video", "image"])
def test_a_set_that_lerobot_wrote_is_checked_and_trained_on(
    lerobot: Callable[..., str], tmp_path: Path, kind: str
) -> None:
    lerobot(NEIGHBOURS / "set_by_lerobot.py", tmp_path / "set", kind)
    keys = ["convention=bridge", "columns.camera=observation.images.image_0"]
    lerobot("-m", "vlaser_gym.data", "check", tmp_path / "set", *keys, f"output={tmp_path / 'drawn.png'}")
    reader = LeRobotReader(tmp_path / "set")
    for number, frames in enumerate(reader.frames()):
        wanted = [10 * row + number for row in range(6 + number)]
        np.testing.assert_allclose([frame.mean() for frame in frames], wanted, atol=4 * (kind == "video"))
    train = ["-m", "vlaser_gym.train", "algo=sft", "init=nano", f"data={tmp_path / 'set'}", f"run={tmp_path / 'run'}"]
    lerobot(*train, *keys, "algo.steps=2", "algo.batch_size=2", "evaluate_episodes=0")
    assert (tmp_path / "run" / "checkpoint").is_dir()


@pytest.mark.parametrize("kind", ["xvla", "smolvla", "pi0"])
def test_language_policies_with_random_weights_are_served(lerobot: Callable[..., str], kind: str) -> None:
    """Of pi0 two of 18 layers, which takes 2 GB on disk for a while."""
    lerobot(NEIGHBOURS / "ask_random_lerobot.py", kind)
