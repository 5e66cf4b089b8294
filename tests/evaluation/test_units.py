"""Actions in the wrong unit are said to be so, once, wherever the agent runs."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_env import make_fake_env
from test_evaluator import score

from vlaser_gym import cli
from vlaser_gym.commands import collect
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.errors import GymWarning
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate

sys.path.insert(0, str(Path(__file__).parents[1] / "agents"))
from served import served


class Same:
    """Always the same action: ``move`` in each direction, ``turn`` about each axis."""

    observes = ("proprio",)

    def __init__(self, move: float = 1.0, turn: float = 1.0) -> None:
        self.action = np.array([move] * 3 + [turn] * 3 + [1.0])

    def reset(self, lanes: Any, addresses: Any) -> None:
        pass

    def act(self, observations: Any, lanes: Any) -> np.ndarray:
        return np.tile(self.action, (len(lanes), 4, 1))


def warned(run: Path, *overrides: str, **hooks: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        score(run, *overrides, **hooks)
    return [str(entry.message) for entry in caught if issubclass(entry.category, GymWarning)]


SENTENCE = (
    "Actions of test_units.Same cannot be metres and radians per control step: the largest step is 1.73 m and 1.73 rad "
    "(widowx reaches 0.66 m, no turn exceeds 3.14 rad): normalised numbers or millimetres? The agent has to convert "
    "them (docs/conventions.md)."
)


def test_normalised_actions_are_said_once_in_a_run(tmp_path: Path) -> None:
    """Of 24 episodes of two tasks, on 4 environments."""
    assert warned(tmp_path / "run", "agent._target_=test_units.Same", "num_envs=4") == [SENTENCE]


def test_degrees_are_said(tmp_path: Path) -> None:
    (sentence,) = warned(tmp_path / "run", "agent._target_=test_units.Same", "agent.move=0.01", "agent.turn=2.0")
    assert "the largest step is 0.02 m and 3.46 rad" in sentence
    assert "degrees?" in sentence


def test_metres_and_radians_are_not(tmp_path: Path) -> None:
    for number, (move, turn) in enumerate([(0.3, 1.5), (0.05, 0.3)]):
        many = (f"agent.move={move}", f"agent.turn={turn}", "agent._target_=test_units.Same")
        assert warned(tmp_path / f"{number}", *many) == []
    assert warned(tmp_path / "reacher") == []


def test_of_a_remote_agent_too(tmp_path: Path) -> None:
    with served(Same()) as url:
        remote = ("agent=remote", "agent._target_=vlaser_gym.agents.remote.RemoteAgent", f"agent.url={url}")
        (sentence,) = warned(tmp_path / "run", *remote)
    assert sentence == SENTENCE.replace("test_units.Same", "remote")


@pytest.mark.slow
def test_of_an_agent_on_workers_too(tmp_path: Path) -> None:
    ray = pytest.importorskip("ray")
    try:
        many = ("agent._target_=test_units.Same", "launcher=ray", "launcher.workers=2", "num_envs=2")
        assert warned(tmp_path / "run", *many) == [SENTENCE]
    finally:
        ray.shutdown()


def test_the_command_says_it_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without the line of code that other warnings come with, and however often the command is run."""
    monkeypatch.setattr(eval_command, "evaluate", lambda *a, **k: evaluate(*a, **k, make_env=make_fake_env))
    for number in range(2):
        words = ["agent._target_=test_units.Same", "task=widowx_stack_cube", "episodes=6", "video=0", "report=false"]
        cli.run("eval", eval_command.main, [*words, f"run={tmp_path / str(number)}"])
        lines = [line for line in capsys.readouterr().err.splitlines() if "metres" in line or "Warning" in line]
        assert lines == [f"Warning: {SENTENCE}"]


def test_demonstrations_are_looked_at_too(tmp_path: Path) -> None:
    words = ["agent._target_=test_units.Same", "task=widowx_stack_cube", "episodes=1", "layouts=grid", "every=60"]
    more = ["only_successful=false", "image_size=32", f"output={tmp_path / 'set'}", "engine.render_processes=1"]
    with pytest.warns(GymWarning, match="largest step is 1.73 m"):
        collect.main(cli.load("collect", [*words, *more]))


NANO = pytest.param("vlaser_nano", "widowx_stack_cube", marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("agent", "task"),
    [(agent, task) for agent in ("expert", "random") for task in ("widowx_stack_cube", "google_robot_open_top_drawer")]
    + [NANO],
)
def test_agents_of_this_gym_are_not_doubted(agent: str, task: str, tmp_path: Path) -> None:
    """On the real engine."""
    words = [f"agent={agent}", f"task={task}", "episodes=1", f"run={tmp_path / 'run'}", "engine.render_processes=1"]
    with warnings.catch_warnings():
        warnings.simplefilter("error", GymWarning)
        assert evaluate(EvalSettings.from_config(cli.load("eval", words))).complete
