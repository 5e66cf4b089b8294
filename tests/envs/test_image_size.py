"""Images of another size than the camera's own: ``engine.image_size``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.cli import load, typed
from vlaser_gym.commands.train import _check_same
from vlaser_gym.envs.engines import check_counts, effective_settings
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymWarning, InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.published import departures, published_table
from vlaser_gym.evaluation.store import read_config, read_records, read_summary
from vlaser_gym.settings.training import TrainSettings

SMALL = {"render_processes": 1, "threads": 1, "image_size": "160x120"}
LARGE = {**SMALL, "image_size": None}
FORWARD = np.tile([0.02, 0.01, -0.01, 0, 0, 0, 1.0], (1, 4, 1))


def env_of(task: str = "widowx_stack_cube", options: dict[str, Any] | None = None, **more: Any) -> SceneVectorEnv:
    return SceneVectorEnv(task, 1, engine_options=options or SMALL, autoreset_mode="Disabled", **more)


def seen(task: str, options: dict[str, Any]) -> dict[str, NDArray[Any]]:
    """All images in layout 3 after a chunk."""
    env = env_of(task, options, observe=("image", "wrist_image"))
    env.reset(options={"layout": 3})
    observation, *_ = env.step_chunk(FORWARD)
    spaces = {name: space.shape for name, space in env.single_observation_space.spaces.items()}
    env.close()
    assert {name: pictures[0].shape for name, pictures in observation.items()} == spaces
    return {name: pictures[0] for name, pictures in observation.items()}


@pytest.mark.parametrize(
    ("task", "size"), [("widowx_stack_cube", (160, 120)), ("google_robot_pick_coke_can", (160, 128))]
)
def test_a_small_picture_shows_what_the_shrunk_large_one_shows(task: str, size: tuple[int, int]) -> None:
    small = seen(task, {**SMALL, "image_size": f"{size[0]}x{size[1]}"})
    for name, large in seen(task, LARGE).items():
        shrunk = cv2.resize(large, size, interpolation=cv2.INTER_AREA).astype(float)
        drawn = small[name].astype(float)
        assert np.abs(drawn - shrunk).mean() < 3
        moved = [np.abs(np.roll(drawn, shift, axis) - shrunk).mean() for shift in (1, -1) for axis in (0, 1)]
        assert np.abs(drawn - shrunk).mean() < min(moved), "a pixel further it fits better"


def test_physics_and_snapshots_do_not_depend_on_the_size() -> None:
    small, large = env_of(), env_of(options=LARGE)
    for env in (small, large):
        env.reset(options={"layout": 3})
        env.step_chunk(FORWARD)
    small.set_state(large.get_state())
    after = [env.step_chunk(FORWARD)[0] for env in (small, large)]
    assert after[0]["proprio"].tobytes() == after[1]["proprio"].tobytes()
    assert [one["image"].shape for one in after] == [(1, 120, 160, 3), (1, 480, 640, 3)]
    for env in (small, large):
        env.close()


@pytest.mark.parametrize(
    ("size", "sentence"),
    [
        ("160x160", r"proportion \(4:3\), as the camera 3rd_view_camera sees the scene; got 160x160: try 160x120"),
        ("1280x960", "at most 640x480"),
    ],
)
def test_a_size_that_the_camera_does_not_have_is_refused(size: str, sentence: str) -> None:
    with pytest.raises(InvalidConfigError, match=sentence):
        env_of(options={**SMALL, "image_size": size})


def test_what_is_no_size_and_an_engine_without_sizes_are_refused() -> None:
    for size in ("small", "160", "0x0", "160x-120", 160):
        with pytest.raises(InvalidConfigError, match="WIDTHxHEIGHT in pixels, such as 160x120; got"):
            check_counts({"name": "mujoco", "image_size": size})
    with pytest.raises(UnknownNameError, match="option of engine 'maniskill'"):
        SceneVectorEnv("widowx_stack_cube", engine="maniskill", engine_options={"image_size": "160x120"})


def test_perturbations_that_count_pixels_are_refused() -> None:
    engine = {"name": "mujoco", "image_size": "160x120"}
    with pytest.raises(InvalidConfigError, match=r"measured in the pixels .* leave engine.image_size=160x120 out"):
        EvalSettings(task="widowx_stack_cube", engine=engine, perturb="blur:mild")
    assert EvalSettings(task="widowx_stack_cube", engine=engine, perturb="light_direction:mild").perturbation


def test_the_size_belongs_to_what_an_environment_was_run_with() -> None:
    task = get_task("widowx_stack_cube")
    assert effective_settings({"name": "mujoco", "image_size": "160x120"}, task)["camera"] == "3rd_view_camera 160x120"
    assert effective_settings({"name": "mujoco", "image_size": None}, task)["camera"] == "3rd_view_camera 640x480"


# ---------------------------------------------------------------------- runs and checkpoints


def test_a_training_run_keeps_its_size_and_goes_on_with_no_other(tmp_path: Path) -> None:
    def stored(*words: str) -> dict[str, Any]:
        settings = typed(TrainSettings, load("train", ["algo=ppo", *words])).stored("nano")
        return dict(json.loads(json.dumps(settings)))

    small = stored("engine.image_size=160x120")
    assert small["image_size"] == "160x120"
    assert "image_size" not in stored()
    for before, now in ((small, stored()), (stored(), small)):
        (tmp_path / "settings.json").write_text(json.dumps(before))
        _check_same(tmp_path, before)
        with pytest.raises(StorageError, match="another image_size"):
            _check_same(tmp_path, now)


def test_a_checkpoint_says_what_size_it_learned_from(tmp_path: Path) -> None:
    config = VlaserConfig.preset("nano")
    plain = nano_processor(config)
    plain.save(tmp_path)
    assert "image_size" not in json.loads((tmp_path / "processor.json").read_text())
    stored = json.loads((tmp_path / "processor.json").read_text())
    (tmp_path / "processor.json").write_text(json.dumps({**stored, "image_size": "160x120"}))
    learned = Processor.load(tmp_path, config)
    assert (plain.image_size, learned.image_size) == ("", "160x120")
    (tmp_path / "copy").mkdir()
    learned.save(tmp_path / "copy")
    assert json.loads((tmp_path / "copy" / "processor.json").read_text())["image_size"] == "160x120"


@pytest.mark.slow
def test_training_evaluation_and_video_of_a_policy_with_small_pictures(tmp_path: Path) -> None:
    from vlaser_gym.commands import render, train

    words = ["task=widowx_stack_cube", "engine.image_size=160x120", "engine.threads=1", "engine.render_processes=1"]
    few = [
        "num_envs=2",
        "algo.iterations=1",
        "algo.n_steps=2",
        "algo.batch_size=4",
        "evaluate_episodes=0",
        f"run={tmp_path / 'ppo'}",
    ]
    train.main(load("train", ["algo=ppo", "init=nano", *few, *words]))
    policy = tmp_path / "ppo" / "checkpoint"
    assert json.loads((policy / "processor.json").read_text())["image_size"] == "160x120"

    scored = ["agent=vlaser", f"checkpoint={policy}", "task=widowx_stack_cube", "episodes=1", "report=false", "video=0"]
    evaluate(EvalSettings.from_config(load("eval", [*scored, *words, f"run={tmp_path / 'small'}"])))
    config = read_config(tmp_path / "small")
    assert config["engine"]["image_size"] == "160x120"
    assert config["agent_settings"]["image_size_of_checkpoint"] == "160x120"
    with pytest.warns(GymWarning, match="was trained on images of 160x120; here they have the size of the camera"):
        evaluate(EvalSettings.from_config(load("eval", [*scored, f"run={tmp_path / 'large'}"])))
    table = published_table("vlaser-widowx")
    runs = [tmp_path / name for name in ("small", "large")]
    said = [" ".join(map(str, departures(read_summary(run), read_config(run), table))) for run in runs]
    assert "camera 3rd_view_camera 160x120 here, 3rd_view_camera 640x480 there" in said[0]
    assert "image size the camera's own here, 160x120 there" in said[1]

    render.main(load("render", ["episodes=all", f"run={tmp_path / 'small'}", f"output={tmp_path / 'videos'}"]))
    (video,) = (tmp_path / "videos").rglob("*.mp4")
    read, frame = cv2.VideoCapture(str(video)).read()
    assert read
    assert frame.shape[0] >= 480, "stored states are drawn as large as ever"
    assert len(read_records(tmp_path / "small")) == 1
