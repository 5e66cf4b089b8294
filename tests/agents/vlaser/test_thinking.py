"""A policy that is asked for the next sub-task while it acts."""

from __future__ import annotations

import numpy as np
import pytest
from demonstrations import tiny_config

from vlaser_gym.agents.vlaser.agent import VlaserAgent, nano_processor
from vlaser_gym.agents.vlaser.answering import reasoning_settings
from vlaser_gym.agents.vlaser.chat import Reply, Request
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError

LANES = np.arange(2)


def agent(think: int | None) -> VlaserAgent:
    config = tiny_config(max_length=80, **reasoning_settings(160))
    made = VlaserAgent(VlaserPolicy.initialise(config, seed=2), nano_processor(config), think=think, micro_batch=2)
    made.reset(LANES, [Address("widowx_stack_cube", layout=lane) for lane in range(2)])
    return made


def observations(step: int, lanes=LANES) -> dict:
    rng = np.random.default_rng(step)
    pose = [0.3, 0.0, 0.1, 0.7071, 0.0, 0.7071, 0.0, 1.0]
    return {
        "image": rng.integers(0, 256, (len(lanes), 48, 64, 3), np.uint8),
        "proprio": np.tile(pose, (len(lanes), 1)),
        "instruction": [f"stack {lane}" for lane in lanes],
    }


def listening(made: VlaserAgent) -> list[list[Request]]:
    """What is asked from now on; the answers are numbered."""
    asked: list[list[Request]] = []

    def replies(requests):
        asked.append(list(requests))
        return [Reply(f"{len(asked)}: {one.question[-40:]}", False) for one in requests]

    made.thinking.model.replies = replies
    return asked


def test_it_is_asked_every_few_decisions_of_each_lane():
    made = agent(2)
    asked = listening(made)
    said = []
    for step in range(3):
        made.act(observations(step), LANES)
        said.append(made.thoughts(LANES))
    assert [len(batch) for batch in asked] == [2, 2]
    assert asked[0][1].question == "<image>\nThe robot shall stack 1. What must it do next?"
    assert asked[0][0].images[0].shape == (24, 24, 3)
    assert said[0] == said[1]
    assert [text[0] for text in said[2]] == ["2", "2"]
    # A new episode on one environment: it is asked at once, and the other one when its turn comes.
    made.reset(LANES[:1], [Address("widowx_stack_cube")])
    made.act(observations(3), LANES)
    assert [len(batch) for batch in asked] == [2, 2, 1]
    state = made.get_state()
    other = agent(2)
    other.set_state(state)
    assert other.thoughts(LANES) == made.thoughts(LANES)


def test_what_it_says_changes_no_action():
    silent, speaking = agent(None), agent(1)
    assert silent.thoughts(LANES) is None
    for step in range(2):
        np.testing.assert_array_equal(silent.act(observations(step), LANES), speaking.act(observations(step), LANES))
    assert "think" not in silent.describe()
    assert speaking.describe()["think"] == 1
    assert all(isinstance(text, str) for text in speaking.thoughts(LANES))


def test_a_policy_without_a_head_is_not_asked():
    config = tiny_config()
    policy, processor = VlaserPolicy.initialise(config), nano_processor(config)
    with pytest.raises(InvalidConfigError, match="without a language head"):
        VlaserAgent(policy, processor, think=1)
    with pytest.raises(InvalidConfigError, match=r"agent\.think is a number of decisions"):
        agent(0)
