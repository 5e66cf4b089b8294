"""How a server's batches adapt to its clients, and how it says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from served import served

from vlaser_gym.agents import make_agent
from vlaser_gym.agents.batch_sizes import SERVING_SIZES
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.agents.remote import RemoteAgent
from vlaser_gym.agents.vlaser.agent import VlaserAgent
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.envs.address import Address

LANES = 8
ADDRESSES = [Address("widowx_stack_cube", layout=f"grid:{lane}") for lane in range(LANES)]


def nano(**settings: Any) -> VlaserAgent:
    target = "vlaser_gym.agents.vlaser.agent.load_agent"
    made: Any = make_agent({"_target_": target, "checkpoint": "nano", "device": "cpu", **settings})
    return made


def observations(count: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    pose = np.tile(np.float32([0.3, 0, 0.1, 1, 0, 0, 0, 0.5]), (count, 1))
    pictures = rng.integers(0, 256, (count, 48, 64, 3), np.uint8)
    return {"image": pictures, "proprio": pose, "instruction": ("stack the cubes",) * count}


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    seen: list[int] = []
    decide = VlaserPolicy.decide

    def watched(self: VlaserPolicy, pixels: Any, *rest: Any, **options: Any) -> Any:
        seen.append(len(pixels))
        return decide(self, pixels, *rest, **options)

    monkeypatch.setattr(VlaserPolicy, "decide", watched)
    threads = torch.get_num_threads()
    yield seen
    torch.set_num_threads(threads)


def asked(url: str, count: int) -> np.ndarray:
    """What a remote agent of so many environments, hence connections, does first."""
    remote, lanes = RemoteAgent(url), np.arange(count)
    remote.reset(lanes, ADDRESSES[:count])
    actions = remote.act(observations(count), lanes)
    remote.close()
    return actions


def test_one_client_pays_for_one_and_the_metadata_say_that_sizes_adapt(sizes: list[int]) -> None:
    with served(nano()) as url:
        remote = RemoteAgent(url)
        assert remote.metadata["batches"] == {"sizes": list(SERVING_SIZES), "adaptive": True}
        assert remote.describe()["micro_batch"] == list(SERVING_SIZES)
        remote.close()
        assert asked(url, 1).shape == (1, 4, 7)
    assert sizes == [1]


def test_clients_that_wait_share_a_batch_of_a_listed_size(sizes: list[int]) -> None:
    with served(nano()) as url:
        actions = asked(url, LANES)
    assert set(sizes) <= set(SERVING_SIZES)
    assert len(sizes) < LANES
    agent = nano()
    agent.reset(np.arange(LANES), ADDRESSES)
    expected = agent.act(observations(LANES), np.arange(LANES))
    np.testing.assert_allclose(actions[..., :6], expected[..., :6], atol=1e-6)


def test_a_given_size_is_kept_and_gives_an_evaluations_bytes(sizes: list[int]) -> None:
    with served(nano(micro_batch=8)) as url:
        remote = RemoteAgent(url)
        assert remote.metadata["batches"] == {"sizes": [8], "adaptive": False}
        remote.close()
        actions = asked(url, 3)
    assert set(sizes) == {8}
    agent = nano()
    agent.reset(np.arange(LANES), ADDRESSES)
    expected = agent.act(observations(LANES), np.arange(LANES))
    np.testing.assert_array_equal(actions, expected[:3])


def test_an_agent_without_batches_says_nothing_of_them() -> None:
    with served(RandomAgent()) as url:
        remote = RemoteAgent(url)
        assert remote.metadata["batches"] is None
        remote.close()


class Counting:
    """Decides at once; notes how many clients it decided for."""

    observes = ("proprio",)

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.gate = threading.Event()

    def reset(self, lanes: np.ndarray, addresses: list[Address]) -> None:
        """Nothing to forget."""

    def act(self, seen: dict[str, Any], lanes: np.ndarray) -> np.ndarray:
        self.gate.wait(0.2)
        self.batches.append(len(lanes))
        return np.zeros((len(lanes), 1, 7))


def test_clients_answered_together_are_taken_together_again() -> None:
    """Requests wait a moment for company; otherwise every second batch would be the first client alone."""
    agent = Counting()
    with served(agent) as url:
        remote, lanes = RemoteAgent(url), np.arange(4)
        remote.reset(lanes, ADDRESSES[:4])
        for _ in range(6):
            remote.act({"proprio": np.zeros((4, 3), np.float32)}, lanes)
        remote.close()
    assert sum(agent.batches) == 24
    assert 4 in agent.batches
