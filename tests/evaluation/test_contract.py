"""How a policy acts stands in its checkpoint, whatever the agent is called; only a key changes it, on record."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import FakeVectorEnv

from vlaser_gym import cli
from vlaser_gym.agents import make_agent
from vlaser_gym.agents.vlaser.agent import SHIPPED, VlaserAgent
from vlaser_gym.agents.vlaser.checkpoint import load_policy, save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import Processor
from vlaser_gym.agents.vlaser.statistics import BRIDGE
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.store import read_config

#: None of these is a default of the package for a policy of this robot.
CONTRACT = {"num_flow_steps": 3, "act_steps": 2, "time_max_period": 55.0}
TEMPLATE, WRAP = "<img>{image}</img>Do: {instruction}\n", "{instruction} now"


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small policy with a contract, statistics and a prompt of its own."""
    config = VlaserConfig.preset("nano", max_length=96, **CONTRACT)
    path = tmp_path / "policy"
    save_pretrained(VlaserPolicy.initialise(config, seed=4), path)
    statistics = dataclasses.replace(BRIDGE, num_trajectories=7)
    Processor.build(config, ByteTokenizer(), statistics=statistics, template=TEMPLATE, wrap=WRAP, resize="area").save(
        path
    )
    return path


class SeeingEnv(FakeVectorEnv):
    """The fake environment with images, which show where its point is."""

    def _observe(self) -> dict[str, Any]:
        seen, self.observe = self.observe, ("proprio", "instruction")
        observation, self.observe = super()._observe(), seen
        observation["proprio"][:, 3] = 1.0
        x = np.arange(32 * 32 * 3).reshape(32, 32, 3) % 97
        observation["image"] = np.stack([(x * (1 + point.sum())).astype(np.uint8) for point in self.point])
        return observation


def score(run: Path, *overrides: str) -> dict[str, bytes]:
    """Episodes as stored, byte for byte."""
    task = ("task=widowx_carrot_on_plate,widowx_stack_cube", "episodes=3")
    settings = EvalSettings.from_config(cli.load("eval", [*task, f"run={run}", *overrides]))
    evaluate(settings, make_env=lambda settings, tasks, lanes, observe: SeeingEnv(tasks, lanes, observe))
    return {path.name: path.read_bytes() for path in [run / "episodes.jsonl", *run.glob("states/*")]}


def test_one_folder_gives_the_same_records_under_both_names(tmp_path: Path, folder: Path) -> None:
    """As case 57 has it: agent=vlaser took 10 flow steps whatever the checkpoint said, agent=vlaser_nano its own."""
    for number, checkpoint in enumerate((folder, SHIPPED / "nano")):
        a = score(tmp_path / f"a{number}", "agent=vlaser", f"checkpoint={checkpoint}")
        b = score(tmp_path / f"b{number}", "agent=vlaser_nano", f"checkpoint={checkpoint}")
        assert len(a) == 7
        assert a == b
        told = [read_config(tmp_path / f"{name}{number}")["agent_settings"] for name in "ab"]
        assert told[0] == told[1]
    other = score(tmp_path / "c", "agent=vlaser", f"checkpoint={folder}", "agent.num_flow_steps=10")
    assert other != score(tmp_path / "d", "agent=vlaser", f"checkpoint={folder}"), "the test can tell"


def test_the_run_keeps_what_was_in_effect(tmp_path: Path, folder: Path) -> None:
    score(tmp_path / "own", "agent=vlaser", f"checkpoint={folder}")
    own = {**CONTRACT, "prompt": TEMPLATE, "prompt_wrap": WRAP, "resize": "area"}
    assert own.items() <= read_config(tmp_path / "own")["agent_settings"].items()
    changed = {"num_flow_steps": 2, "act_steps": 4, "resize": "lanczos4", "prompt_wrap": "{instruction}!"}
    keys = [f"agent.{name}={value!r}" for name, value in changed.items()]
    score(tmp_path / "changed", "agent=vlaser", f"checkpoint={folder}", *keys)
    assert {**own, **changed}.items() <= read_config(tmp_path / "changed")["agent_settings"].items()


def test_it_acts_by_its_contract(folder: Path) -> None:
    """Three Euler steps by hand from the address's noise, two actions executed."""
    agent = make_agent({**cli.group_config("agent", "vlaser"), "checkpoint": str(folder)})
    assert isinstance(agent, VlaserAgent)
    observations = {
        "image": np.full((1, 40, 60, 3), 90, np.uint8),
        "proprio": np.array([[0.3, 0, 0.1, 1, 0, 0, 0, 0.5]], np.float32),
        "instruction": ("stack it",),
    }
    address = Address("widowx_stack_cube")
    agent.reset(np.array([0]), [address])
    executed = agent.act(observations, np.array([0]))
    policy, _ = load_policy(folder)
    ids = ByteTokenizer().encode(
        "<img>" + "<IMG_CONTEXT>" * policy.config.num_image_tokens + "</img>Do: stack it now\n"
    )
    pixels, padded, proprio = agent.processor.inputs(observations)
    assert padded[0, : len(ids)].tolist() == ids
    x = torch.from_numpy(address.rng().standard_normal((1, 4, 7), dtype=np.float32))
    with torch.inference_mode():
        prefix = policy.encode(pixels, padded, proprio)
        for step in range(3):
            x = x + policy.velocity(prefix, x, torch.full((1,), step / 3)) / 3
    expected = agent.processor.arm_actions(x.clamp(-1, 1).numpy())[:, :2, :6]
    assert executed.shape == (1, 2, 7)
    np.testing.assert_allclose(executed[..., :6], expected, atol=1e-5)


def test_a_contract_that_cannot_be_kept_is_refused(folder: Path) -> None:
    wrong = ({"act_steps": 5}, "act_steps is 1 to 4"), ({"resize": "cubic"}, "'cubic'")
    for given, match in wrong:
        with pytest.raises((InvalidConfigError, UnknownNameError), match=match):
            make_agent({**cli.group_config("agent", "vlaser"), "checkpoint": str(folder), **given})
    with pytest.raises(InvalidConfigError, match="act_steps should be 1 to 4"):
        VlaserConfig.preset("nano", act_steps=5)


def test_checkpoints_without_executed_steps_have_their_robots() -> None:
    assert [VlaserConfig.preset("nano", robot).executed_steps for robot in ("widowx", "google_robot")] == [4, 2]
    assert VlaserConfig.preset("nano", horizon=3).executed_steps == 3
    assert VlaserConfig.preset("nano", "google_robot", act_steps=4).executed_steps == 4
