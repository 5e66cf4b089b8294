"""What a user's file adds is known to commands, functions and workers, by name and by import string."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import vlaser_gym
from vlaser_gym import cli, registry
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.envs.engines import check_engine, engine_names, make_engine
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.store import read_records

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
    with pytest.raises(UnknownNameError, match="look of engine 'floating' 'dusk'.*fog, night"):
        check_engine("floating", "dusk")
    with pytest.raises(UnknownNameError, match="option of engine 'floating' 'hight'.*height"):
        make_engine("floating", 1, options={"hight": 1.0})
    with pytest.raises(InvalidConfigError, match="engine must be importable.*floating_file:Sinking"):
        check_engine("floating_file:Sinking")
    with pytest.raises(InvalidConfigError, match="not one of the package's own"):
        vlaser_gym.register_engine("mujoco", mine.Floating)
    with pytest.raises(InvalidConfigError, match="letters, digits"):
        vlaser_gym.register_engine("a:b", mine.Floating)
