"""Data sets damaged at random: a sentence each, from whoever reads or continues them; the slow test tries 700."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage import survivors
from demonstrations import SIZE, fake_episode, write_set

from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.errors import GymError
from vlaser_gym.evaluation.lerobot import LeRobotReader, LeRobotWriter
from vlaser_gym.training.data.demonstrations import Demonstrations


def learn(path: Path) -> None:
    Demonstrations([LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE), cache=path.parent / "cache")


def go_on(path: Path) -> None:
    with LeRobotWriter(path, fps=5, robot="widowx", group=4) as writer:
        if fake_episode(9).address not in writer.addresses:
            writer.add(fake_episode(9, 3))


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    path = write_set(tmp_path / "whole", 3, rows=3, group=2)
    with LeRobotWriter(path, fps=5, robot="widowx", group=2) as writer:
        writer.drop(fake_episode(7).address)
    return path


@pytest.mark.parametrize(("read", "count"), [(learn, 60), (go_on, 40)])
def test_some_damage_is_a_sentence(whole, tmp_path, read, count):
    assert survivors(whole, tmp_path / "copy", read, range(count), GymError) > count / 10


@pytest.mark.long
def test_seven_hundred_damaged_data_sets_are_a_sentence_each(whole, tmp_path):
    for read, seeds in ((learn, range(1000, 1450)), (go_on, range(2000, 2250))):
        assert survivors(whole, tmp_path / "copy", read, seeds, GymError) > len(seeds) / 10
