"""openpi's own client, in an environment of its own, asks our server; nothing here is a stand-in."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from served import served

import vlaser_gym
from vlaser_gym.agents import make_agent
from vlaser_gym.agents.admission import new_token
from vlaser_gym.envs.address import Address

SCRIPT = Path(__file__).parents[1] / "neighbours" / "ask_by_openpi.py"
NAMES = {"image": "observation/image", "proprio": "observation/state", "instruction": "prompt", "state": "state"}


class Overheard:
    """Another agent; every decision of its only environment is written down as one of openpi's messages, with its
    answer.
    """

    def __init__(self, agent: Any) -> None:
        self.agent, self.observes = agent, agent.observes
        self.messages: list[dict[str, Any]] = []
        self.chunks: list[np.ndarray] = []
        self._begins: str | None = None

    def reset(self, lanes: np.ndarray, addresses: Sequence[Address]) -> None:
        self._begins = str(addresses[0])
        self.agent.reset(lanes, addresses)

    def act(self, observations: dict[str, Any], lanes: np.ndarray) -> np.ndarray:
        message = {NAMES[name]: np.array(observations[name][0]) for name in self.observes if name != "instruction"}
        if "instruction" in self.observes:
            message["prompt"] = observations["instruction"][0]
        if self._begins is not None:
            message, self._begins = {**message, "address": self._begins}, None
        chunk = self.agent.act(observations, lanes)
        self.messages.append(message)
        self.chunks.append(chunk[0])
        return np.asarray(chunk)


@pytest.mark.long
@pytest.mark.parametrize("name", ["expert", "vlaser_nano"])
def test_openpi_s_client_is_answered_as_one_asks_in_process(
    tmp_path: Path, neighbour: Callable[[str], Path], name: str
) -> None:
    """Every decision of an episode: the arrays that arrive are those that the agent gives here, bit for bit."""
    overheard = Overheard(make_agent(name))
    vlaser_gym.evaluate(overheard, task="widowx_stack_cube", episodes=1, num_envs=1, run=str(tmp_path / "run"))
    np.savez(tmp_path / "seen.npz", messages=np.array(overheard.messages, object))
    agent, token = _of_one_size(make_agent(name)), new_token()
    with served(agent, name, token=token) as url:
        subprocess.run(
            [neighbour("openpi"), SCRIPT, url, token, tmp_path / "seen.npz", tmp_path / "answers.npz"], check=True
        )
    answers = np.load(tmp_path / "answers.npz")
    chunks = np.stack(overheard.chunks)
    assert len(chunks) >= 4
    assert answers["chunks"].dtype == chunks.dtype
    np.testing.assert_array_equal(answers["chunks"], chunks)
    np.testing.assert_array_equal(answers["single"], chunks[0])
    assert answers["agent"] == name
    assert "Error in inference server" in str(answers["said"])
    assert "The observation has no" in str(answers["said"])


def _of_one_size(agent: Any) -> Any:
    """A server adapts the rows of forward passes to its clients; an evaluation does not."""
    if hasattr(agent, "set_batch_sizes"):
        agent.set_batch_sizes = lambda sizes: None
    return agent
