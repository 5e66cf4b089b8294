from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlaser_gym.agents import DEFAULT_OBSERVES, make_agent
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.errors import AgentError, InvalidConfigError, MissingAssetError, UnknownNameError

HERE = f"{__name__}."


class Minimal:
    """Has the two methods and nothing else."""

    def reset(self, lanes: Any, addresses: Any) -> None: ...

    def act(self, observations: Any, lanes: Any) -> np.ndarray:
        return np.zeros((len(lanes), 1, 7))


class Modest(Minimal):
    observes = "proprio"


class Picky(Minimal):
    def __init__(self, weights: str, temperature: float = 1.0) -> None:
        if weights == "none":
            raise MissingAssetError("no weights")
        self.weights, self.temperature = weights, temperature


class Greedy(Minimal):
    def __init__(self, **options: Any) -> None:
        self.options = options


class NoAgent:
    def reset(self, lanes: Any, addresses: Any) -> None: ...


def test_by_name_and_by_config() -> None:
    assert isinstance(make_agent("random"), RandomAgent)
    agent = make_agent({"_target_": "vlaser_gym.agents.random.RandomAgent", "name": "r", "horizon": 2})
    assert isinstance(agent, RandomAgent)
    assert agent.horizon == 2


def test_the_name_may_refer_to_the_class() -> None:
    agent = make_agent({"name": "${_target_}", "_target_": HERE + "Picky", "weights": "w", "temperature": 0.5})
    assert (agent.weights, agent.temperature) == ("w", 0.5)


def test_what_it_does_not_say_it_observes_is_everything_public() -> None:
    assert make_agent({"_target_": HERE + "Minimal"}).observes == DEFAULT_OBSERVES


def test_a_lone_observation_is_one_name() -> None:
    assert make_agent({"_target_": HERE + "Modest"}).observes == ("proprio",)


def test_options_of_any_name_are_handed_to_classes_that_take_them() -> None:
    assert make_agent({"_target_": HERE + "Greedy", "a": 1, "b": [2, 3]}).options == {"a": 1, "b": [2, 3]}


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ("randm", UnknownNameError, "nearest: random"),
        (
            {"_target_": "RandomAgent"},
            InvalidConfigError,
            "importable class such as my_package.MyAgent; got 'RandomAgent'",
        ),
        ({"_target_": "vlaser_gym.agents.random.Random"}, InvalidConfigError, "importable class"),
        ({}, InvalidConfigError, "importable class"),
        ({"_target_": "vlaser_gym.agents.DEFAULT_OBSERVES"}, InvalidConfigError, "must be a class"),
        ({"_target_": HERE + "NoAgent"}, InvalidConfigError, "has no act"),
        ({"_target_": HERE + "Picky"}, InvalidConfigError, "give agent.weights=VALUE"),
        ({"_target_": HERE + "Picky", "weights": "w", "temprature": 2}, UnknownNameError, "nearest: temperature"),
        ({"_target_": HERE + "Minimal", "k": 1}, InvalidConfigError, "takes no arguments; got agent.k"),
        ({"_target_": HERE + "Picky", "weights": "none"}, MissingAssetError, "no weights"),
    ],
)
def test_mistakes_are_one_sentence(config: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        make_agent(config)
    assert message in str(caught.value)


def test_an_error_of_the_class_itself_keeps_its_traceback_and_says_where() -> None:
    with pytest.raises(AgentError, match=rf"^Building the agent {HERE}Broken .* raised ValueError \(invalid") as caught:
        make_agent({"_target_": HERE + "Broken"})
    assert 'int("x")' in caught.value.trace


def test_so_does_one_of_its_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "unfinished_agent.py").write_text("class Agent:\n    def act(self)\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(AgentError, match=r"Importing the agent unfinished_agent\.Agent raised SyntaxError") as caught:
        make_agent({"_target_": "unfinished_agent.Agent"})
    assert "def act(self)" in caught.value.trace


class Broken(Minimal):
    def __init__(self) -> None:
        int("x")
