"""What a user's file adds is known to commands, functions and workers, by name and by import string."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import vlaser_gym
from vlaser_gym import cli, registry
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.commands import train as train_command
from vlaser_gym.envs.engines import check_engine, engine_names, make_engine
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.store import read_records
from vlaser_gym.training.metrics import read_metrics

FLOATING = '''
import numpy as np

from vlaser_gym.envs.engines import Reading, Verdict


class Floating:
    """Objects float where they are; whoever has gone up far enough succeeds."""

    name, version = "floating", "0.1"
    looks = ("fog", "night")

    def __init__(self, num_lanes, look="fog", height=0.1):
        self.look, self.height = look, height
        self.placed, self.up = [None] * num_lanes, np.zeros(num_lanes)

    def place(self, lanes, placements):
        for lane, placement in zip(lanes, placements):
            self.placed[lane], self.up[lane] = placement, 0.0

    def read(self, lanes):
        return [self._read(self.placed[lane], bool(self.up[lane] > self.height)) for lane in lanes]

    def _read(self, placed, success):
        task = placed.task
        flags = {name: success for name in task.flags}
        pose = np.tile([0.0, 0, 0.9, 1, 0, 0, 0], (len(task.objects), 1))
        return Reading(placed.qpos, 0 * placed.qpos, pose, np.zeros((len(task.contacts), 3)), {},
                       verdict=Verdict(flags, 0, "go up"))

    def execute(self, lanes, actions):
        self.up[lanes] += actions[:, 2]

    def advance(self, lanes):
        pass

    def images(self, lanes):
        return np.full((len(lanes), 480, 640, 3), 128, np.uint8)

    def get_state(self):
        return {"up": self.up.copy()}

    def set_state(self, state):
        self.up[:] = state["up"]

    def close(self):
        pass


class Climber:
    observes = ("proprio",)

    def __init__(self, speed=0.01):
        self.speed = speed

    def reset(self, lanes, addresses):
        pass

    def act(self, observations, lanes):
        return np.tile([0, 0, self.speed, 0, 0, 0, 1.0], (len(lanes), 4, 1))
'''


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """A user's file in the folder that the command is called in."""
    (tmp_path / "floating_file.py").write_text(FLOATING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    for known in (registry.ENGINES, registry.DENSITIES, registry.REWARDS):
        monkeypatch.setattr(known, "added", {})
    import floating_file

    yield floating_file
    del sys.modules["floating_file"]


SHORT = ["task=widowx_stack_cube", "episodes=2", "video=0", "run=run", "agent._target_=floating_file.Climber"]


@pytest.mark.parametrize("speed", [0.01, 0.0])
def test_an_engine_by_import_string_scores_episodes(mine: ModuleType, tmp_path: Path, speed: float) -> None:
    arguments = ["engine=floating_file:Floating", "engine.height=0.195", "look=night", f"agent.speed={speed}"]
    cli.run("eval", eval_command.main, [*SHORT, *arguments])
    records = read_records(tmp_path / "run")
    assert [(r["engine"], r["engine_version"], r["look"]) for r in records] == [("floating", "0.1", "night")] * 2
    assert [r["success"] for r in records] == [speed > 0] * 2
    # 19.5 cm at 1 cm per control step: it is above after the 20th.
    assert [r["first_success_step"] for r in records] == [20 if speed else None] * 2
    assert (tmp_path / "run" / "report.html").is_file()


def test_an_engine_by_name_is_known_to_commands_and_functions(mine: ModuleType, tmp_path: Path) -> None:
    assert "floating" not in engine_names()
    with pytest.raises(UnknownNameError, match="floating"):
        cli.load("eval", ["engine=floating"])
    vlaser_gym.register_engine("floating", mine.Floating)
    assert engine_names() == ("mujoco", "maniskill", "simpler", "floating")
    found = vlaser_gym.evaluate(
        mine.Climber(0.02), task="widowx_stack_cube", episodes=1, video=0, run="run", engine={"name": "floating"}
    )
    assert found.records[0]["look"] == "fog"
    assert found.rates["widowx_stack_cube"][0] == 1.0


def test_wrong_looks_options_and_names_are_one_sentence(mine: ModuleType) -> None:
    vlaser_gym.register_engine("floating", mine.Floating)
    with pytest.raises(UnknownNameError, match=r"look of engine 'floating' 'dusk'.*fog, night"):
        check_engine("floating", "dusk")
    with pytest.raises(UnknownNameError, match=r"option of engine 'floating' 'hight'.*height"):
        make_engine("floating", 1, options={"hight": 1.0})
    with pytest.raises(InvalidConfigError, match=r"engine must be importable.*floating_file:Sinking"):
        check_engine("floating_file:Sinking")
    with pytest.raises(InvalidConfigError, match="not one of the package's own"):
        vlaser_gym.register_engine("mujoco", mine.Floating)
    with pytest.raises(InvalidConfigError, match="letters, digits"):
        vlaser_gym.register_engine("a:b", mine.Floating)


LEARNING = '''
import numpy as np

from vlaser_gym.agents.vlaser.densities import FlowSde
from vlaser_gym.wrappers import SceneWrapper


class Loud(FlowSde):
    made = []

    def __init__(self, num_steps, noise_level, width, seed):
        super().__init__(num_steps, 2 * noise_level)
        self.made.append((num_steps, noise_level, width, seed))


class Upwards(SceneWrapper):
    """A tenth of what it costs to go down, whatever happens; and who looks at it sees all that it was told."""

    observes, ends_at_success = ("state",), False
    told = []

    def __init__(self, env, gamma):
        super().__init__(env)
        self.told.append(gamma)

    def on_step(self, observation, reward, terminated, truncated, info):
        assert "state" in self.single_observation_space.spaces
        assert "success" in info["chunk"]["flags"]
        own = np.where(info["chunk"]["ran"], 0.125, 0.0)
        return observation, own.sum(1), terminated, truncated, {**info, "chunk": {**info["chunk"], "reward": own}}
'''

TINY_PPO = [
    *("algo=ppo", "init=nano", "task=widowx_stack_cube", "num_envs=2", "threads=1", "device=cpu", "run=run"),
    *("algo.iterations=1", "algo.n_steps=2", "algo.batch_size=4", "algo.epochs=1", "evaluate_episodes=0"),
    *("algo.flow_steps=2", "algo.critic_warmup=0", "algo.gamma=0.5"),
]


@pytest.fixture
def learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mine: ModuleType) -> Iterator[ModuleType]:
    (tmp_path / "learning_file.py").write_text(LEARNING)
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)
    import learning_file

    yield learning_file
    del sys.modules["learning_file"]


@pytest.mark.parametrize("way", ["import string", "name"])
def test_a_density_and_a_reward_train_by_the_command(learning: ModuleType, tmp_path: Path, way: str) -> None:
    named = ("algo.density=learning_file:Loud", "algo.reward=learning_file:Upwards")
    if way == "name":
        vlaser_gym.register_density("loud", learning.Loud)
        vlaser_gym.register_reward("upwards", learning.Upwards)
        named = ("algo.density=loud", "algo.reward=upwards")
    train_command.main(cli.load("train", [*TINY_PPO, "algo.noise_level=0.25", *named]))
    (row,) = read_metrics(tmp_path / "run" / "metrics.jsonl")
    # Decisions of four control steps, 0.125 each, discounted by 0.5: 0.125 + 0.0625 + 0.03125 + 0.015625.
    assert row["rollout/reward"] == pytest.approx(0.234375)
    assert row["train/first_ratio_error"] < 1e-5
    assert learning.Loud.made == [(2, 0.25, 96, 0)]  # nano is 96 wide
    assert learning.Upwards.told == [0.5]


def test_functions_take_what_was_registered_and_nested_mappings(learning: ModuleType, tmp_path: Path) -> None:
    small = {"iterations": 1, "n_steps": 2, "batch_size": 4, "epochs": 1, "flow_steps": 2, "critic_warmup": 0}
    algo = {"name": "ppo", **small, "reward": "subgoals", "subgoal_weights": {"moved_correct_obj": 0, "success": 2.5}}
    given = {"task": "widowx_stack_cube", "num_envs": 2, "threads": 1, "evaluate_episodes": 0, "run": tmp_path / "run"}
    found = vlaser_gym.train(algo, "nano", **given)
    assert found.path == tmp_path / "run"
    assert (found.checkpoint / "model.safetensors").is_file()
    assert found.metrics["step"] == 4
    stored = json.loads((found.path / "settings.json").read_text())["algo"]
    assert stored["subgoal_weights"] == {"moved_correct_obj": 0, "success": 2.5}
    with pytest.raises(UnknownNameError, match=r"sub-goal of these tasks 'moved'.*moved_correct_obj"):
        vlaser_gym.train({**algo, "subgoal_weights": {"moved": 1}}, "nano", **{**given, "run": tmp_path / "other"})
    with pytest.raises(InvalidConfigError, match=r"algo\.reward=sparse reads no algo\.subgoal_weights"):
        vlaser_gym.train({**algo, "reward": "sparse"}, "nano", **{**given, "run": tmp_path / "other"})
    with pytest.raises(InvalidConfigError, match="should wrap the environment"):
        vlaser_gym.train({**small, "name": "ppo", "reward": "builtins:id"}, "nano", **{**given, "run": "other"})
    with pytest.raises(InvalidConfigError, match=r"should give a .*Density; got Fraction"):
        vlaser_gym.train({**small, "name": "ppo", "density": "fractions:Fraction"}, "nano", **{**given, "run": "other"})
    assert not (tmp_path / "other").exists()
