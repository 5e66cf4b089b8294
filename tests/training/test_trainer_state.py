"""Generations of a trainer's state."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from vlaser_gym.training.trainer_state import write_state


def stored(file: Path) -> int:
    return int(torch.load(file, weights_only=True)["step"])


def test_the_state_before_stays_as_the_previous_one(tmp_path: Path) -> None:
    file, previous = tmp_path / "trainer.pt", tmp_path / "trainer.pt.previous"
    for step in (1, 2, 3):
        write_state(file, {"step": step})
    assert (stored(file), stored(previous)) == (3, 2)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, previous.name}


def test_nothing_is_left_where_a_death_left_both_names_to_one_file(tmp_path: Path) -> None:
    file, previous = tmp_path / "trainer.pt", tmp_path / "trainer.pt.previous"
    write_state(file, {"step": 1})
    os.link(file, previous)  # between the two renames of the second state
    write_state(file, {"step": 2})
    assert (stored(file), stored(previous)) == (2, 1)
    assert {path.name for path in tmp_path.iterdir()} == {file.name, previous.name}
