from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym.agents.base import Agent
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError

ADDRESSES = [Address("widowx_stack_cube", layout=f"grid:{k}") for k in range(3)]


def rollout(agent: RandomAgent, lanes: list[int], addresses: list[Address], decisions: int = 3) -> dict:
    agent.reset(np.array(lanes), addresses)
    chunks = [agent.act({}, np.array(lanes)) for _ in range(decisions)]
    return {address: np.concatenate([c[i] for c in chunks]) for i, address in enumerate(addresses)}


def test_actions_follow_from_the_address_not_from_the_lane_or_the_company() -> None:
    together = rollout(RandomAgent(), [0, 1, 2], ADDRESSES)
    for address in ADDRESSES:
        alone = rollout(RandomAgent(), [7], [address])
        np.testing.assert_array_equal(alone[address], together[address])


def test_every_part_of_the_address_changes_them() -> None:
    addresses = [*ADDRESSES, Address("widowx_stack_cube", trial=1), Address("widowx_carrot_on_plate")]
    drawn = rollout(RandomAgent(), list(range(5)), addresses)
    assert len({actions.tobytes() for actions in drawn.values()}) == 5


def test_an_episode_that_begins_again_repeats() -> None:
    agent = RandomAgent()
    first = rollout(agent, [0], ADDRESSES[:1])
    np.testing.assert_array_equal(rollout(agent, [0], ADDRESSES[:1])[ADDRESSES[0]], first[ADDRESSES[0]])


def test_motions_fill_their_bounds_and_the_gripper_is_open_or_closed() -> None:
    agent = RandomAgent(translation=0.01, rotation=0.3, horizon=5)
    actions = rollout(agent, [0], ADDRESSES[:1], decisions=400)[ADDRESSES[0]]
    assert actions.shape == (2000, 7)
    assert 0.0099 < np.abs(actions[:, :3]).max() <= 0.01
    assert 0.297 < np.abs(actions[:, 3:6]).max() <= 0.3
    assert (np.abs(actions[:, :6].mean(0)) < 0.05 * agent.bounds).all()
    gripper = actions[:, 6].reshape(400, 5)
    assert set(np.unique(gripper)) == {-1.0, 1.0}
    assert (gripper == gripper[:, :1]).all(), "one command per decision"
    assert 0.4 < (gripper[:, 0] > 0).mean() < 0.6


def test_it_is_an_agent_that_reads_nothing() -> None:
    assert isinstance(RandomAgent(), Agent)
    assert RandomAgent().observes == ()


@pytest.mark.parametrize("options", [{"horizon": 0}, {"translation": -0.1}, {"rotation": -1.0}])
def test_senseless_options_are_refused(options: dict) -> None:
    with pytest.raises(InvalidConfigError, match=next(iter(options))):
        RandomAgent(**options)
