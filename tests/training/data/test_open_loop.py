"""Open-loop agreement, against agents whose shares of the variance are known beforehand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import foreign
import numpy as np
import pytest
from demonstrations import write_set

from vlaser_gym import cli
from vlaser_gym.commands.data import main
from vlaser_gym.conventions import Convention
from vlaser_gym.errors import AgentError, InvalidConfigError
from vlaser_gym.evaluation.lerobot_reader import LeRobotReader
from vlaser_gym.training.data.open_loop import GREY, OTHER, RECORDED, Agreement, open_loop
from vlaser_gym.training.data.rows import checked_rows
from vlaser_gym.training.data.sources import Source


class Says:
    """Answers each row of its observations by a function of that row alone."""

    def __init__(self, answer: Callable[[dict[str, Any]], np.ndarray], *observes: str) -> None:
        self.answer, self.observes = answer, observes
        self.begun: list[int] = []

    def reset(self, lanes: np.ndarray, addresses: list[Any]) -> None:
        self.begun += lanes.tolist()

    def act(self, observations: dict[str, Any], lanes: np.ndarray) -> np.ndarray:
        return np.stack([self.answer({k: v[i] for k, v in observations.items()}) for i in range(len(lanes))])


def by_group(found: list[Agreement]) -> dict[tuple[str, str], Agreement]:
    return {(row.decisions, row.shown): row for row in found}


@pytest.fixture
def recorded(tmp_path: Path) -> tuple[Source, np.ndarray]:
    """Two episodes of 6 and 7 rows, told different sentences, of actions in this gym's units ``[13, 7]``."""
    path = write_set(tmp_path / "set", 2, rows=6)
    return Source(str(path)), LeRobotReader(path).columns(["action"])["action"]


def test_who_knows_the_actions_by_the_state_explains_all_of_them(recorded: tuple[Source, np.ndarray]) -> None:
    source, actions = recorded
    states = LeRobotReader(source.path).columns(["observation.state"])["observation.state"]
    agent = Says(lambda seen: actions[np.abs(states - seen["proprio"]).sum(1).argmin()][None], "proprio")
    found = open_loop(source, "widowx", agent)
    assert [(row.decisions, row.shown, row.count) for row in found] == [
        ("first", RECORDED, 2),
        ("second", RECORDED, 2),
        ("later", RECORDED, 9),
    ]
    for row in found:
        assert (row.translation, row.rotation, row.error) == pytest.approx((1, 1, 0))


def test_the_mean_explains_nothing_and_its_error_is_the_spread(recorded: tuple[Source, np.ndarray]) -> None:
    """Of the two first actions a and b the mean is (a + b) / 2, as far from both as half of their distance."""
    source, actions = recorded
    first = actions[[0, 6]]
    row = open_loop(source, "widowx", Says(lambda seen: first.mean(0)[None], "proprio"))[0]
    assert (row.translation, row.rotation) == pytest.approx((0, 0))
    assert row.error == pytest.approx(np.linalg.norm(first[0, :3] - first[1, :3]) / 2)
    # Always a: an error of |a - b|^2 in all, where the mean's is half of that.
    worse = open_loop(source, "widowx", Says(lambda seen: first[:1], "proprio"))[0]
    assert worse.translation == pytest.approx(-1)


def test_an_image_that_is_not_read_makes_no_difference_and_one_that_is_makes_all(tmp_path: Path) -> None:
    """Images have the brightness 10 x row + episode; grey ones have 127, which no row has."""
    path = foreign.bridge(tmp_path / "set", episodes=3, length=6)
    source = Source(str(path), convention=Convention.parse("bridge"))
    brightness = [10 * i + episode for episode, length in enumerate((6, 7, 8)) for i in range(length)]
    truth = dict(zip(brightness, checked_rows(source.reader(), source, "widowx").chunks(2), strict=True))
    agent = Says(lambda seen: truth.get(int(seen["image"].mean()), np.zeros((2, 7))), "image", "instruction")
    found = by_group(open_loop(source, "widowx", agent))
    for group in ("first", "second", "later"):
        assert found[group, RECORDED].translation == pytest.approx(1)
        assert found[group, OTHER].translation == pytest.approx(1)
        assert found[group, GREY].translation < 0.1


def test_another_instruction_is_the_next_one_of_the_set(tmp_path: Path) -> None:
    path = foreign.bridge(tmp_path / "set", episodes=3, length=3)
    source = Source(str(path), convention=Convention.parse("bridge"))
    told: list[str] = []

    def answer(seen: dict[str, Any]) -> np.ndarray:
        told.append(seen["instruction"])
        return np.zeros((1, 7))

    agent = Says(answer, "instruction")
    found = open_loop(source, "widowx", agent)
    assert {row.shown for row in found} == {RECORDED, OTHER}
    a, b = foreign.TEXTS
    assert told[:6] == [a, b, b, a, a, b]
    assert sorted(agent.begun) == list(range(6)), "each input of each episode is an environment of its own"


def test_some_episodes_and_some_decisions(tmp_path: Path) -> None:
    """Of seven episodes, three evenly drawn are the first, the middle and the last; a decision every second row."""
    path = write_set(tmp_path / "set", 7, rows=6, every=2)
    states = LeRobotReader(path).columns(["observation.state"])["observation.state"]
    shown: list[int] = []

    def answer(seen: dict[str, Any]) -> np.ndarray:
        shown.append(int(np.abs(states - seen["proprio"]).sum(1).argmin()))
        return np.zeros((3, 7))

    found = open_loop(Source(str(path), first=2), "widowx", Says(answer, "proprio"), episodes=3)
    assert [(row.decisions, row.count) for row in found] == [("first", 3), ("second", 3)]
    starts = [episode["dataset_from_index"] for episode in LeRobotReader(path).episodes]
    assert sorted(shown) == sorted(starts[e] + step for e in (0, 3, 6) for step in (0, 2))


def test_what_cannot_be_compared_is_a_sentence(recorded: tuple[Source, np.ndarray]) -> None:
    source, _ = recorded
    with pytest.raises(InvalidConfigError, match="shows image, proprio, instruction; this agent also reads state"):
        open_loop(source, "widowx", Says(lambda seen: np.zeros((1, 7)), "proprio", "state"))
    with pytest.raises(AgentError, match=r"one chunk per environment, \(2, H, 7\); got \(2, 7\)"):
        open_loop(source, "widowx", Says(lambda seen: np.zeros(7), "proprio"))
    with pytest.raises(AgentError, match="The agent's act raised KeyError"):
        open_loop(source, "widowx", Says(lambda seen: seen["picture"], "proprio"))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = foreign.bridge(tmp_path / "set", episodes=2, length=3)
    words = ["open_loop", str(path), "convention=bridge", "agent=vlaser", "checkpoint=nano"]
    cli.run("data", main, cli.named(words, "action", "data"))
    lines = capsys.readouterr().out.splitlines()
    assert "2 episodes, 7 rows" in lines[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines if line.startswith("| ")]
    assert rows[0] == ["decisions", "shown", "number", "translation %", "rotation %", "error mm"]
    assert [row[:3] for row in rows[1:]] == [
        [group, shown, number]
        for group, number in (("first", "2"), ("second", "2"), ("later", "3"))
        for shown in (RECORDED, OTHER, GREY)
    ]
