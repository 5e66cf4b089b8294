from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.agents.ablated import SENTENCES, AblatedAgent
from vlaser_gym.envs.tasks import get_task, resolve
from vlaser_gym.errors import UnknownNameError


class Listener:
    observes = ("image", "instruction")

    def reset(self, lanes, addresses) -> None:
        pass

    def act(self, observations, lanes):
        self.heard = observations
        return np.zeros((len(lanes), 1, 7))


def filtered(told, **how):
    agent = AblatedAgent("random", **how)
    agent.agent = Listener()
    images = np.arange(len(told), dtype=np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
    agent.act({"image": images, "instruction": told}, np.arange(len(told)))
    return agent.agent.heard["image"][:, 0, 0, 0].tolist(), agent.agent.heard["instruction"]


def test_pictures_change_places_within_an_instruction():
    assert filtered(("a", "b", "a", "a", "c"), image="swap") == ([3, 127, 0, 2, 127], ("a", "b", "a", "a", "c"))


def test_blank_pictures_and_true_ones():
    assert filtered(("a", "b"), image="blank")[0] == [127, 127]
    assert filtered(("a", "b")) == ([0, 1], ("a", "b"))


def test_every_widowx_instruction_is_exchanged_for_another_ones():
    told = tuple(get_task(name).instruction("grid:0") for name in resolve("widowx"))
    assert set(told) == set(SENTENCES)
    heard = filtered(told, instruction="other")[1]
    assert set(heard) == set(told)
    assert all(a != b for a, b in zip(told, heard, strict=True))
    assert filtered(told, instruction="empty")[1] == ("",) * 4


def test_unknown_filters_are_refused():
    with pytest.raises(UnknownNameError, match="swap"):
        AblatedAgent("random", image="mirror")
