from __future__ import annotations

import json

import numpy as np
import pytest
from demonstrations import tiny_config
from test_exploration import LANES, decide, observations

from vlaser_gym.agents.vlaser.agent import VlaserAgent, load_agent, nano_processor
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.published import REFERENCES, departures, published_table
from vlaser_gym.evaluation.store import setting_differences


def make(initial_noise=None, contract=1.0) -> VlaserAgent:
    config = tiny_config(initial_noise=contract)
    policy = VlaserPolicy.initialise(config, 1)
    return VlaserAgent(policy, nano_processor(config), micro_batch=4, initial_noise=initial_noise)


def test_the_flow_begins_at_the_addresses_noise_times_its_scale():
    for scale in (0.0, 0.3, 1.0):
        generator = LANES[2].rng()
        for _ in range(2):
            drawn = generator.standard_normal((4, 7), dtype=np.float32)
        row = decide(make(scale))[1][2]
        np.testing.assert_array_equal(row["noise"], np.float32(scale) * drawn)


def test_at_0_trials_are_the_same_episode():
    actions = []
    for trial in (0, 1):
        agent = make(0.0)
        agent.reset(np.array([0]), [Address("widowx_stack_cube", layout="grid:0", trial=trial)])
        actions.append(agent.act(observations([0]), np.array([0])))
    np.testing.assert_array_equal(*actions)


def test_it_belongs_to_a_checkpoint(tmp_path):
    """Stored and read back; 1 where a checkpoint of before says nothing; an evaluation may choose another."""
    policy, processor = VlaserPolicy.initialise(tiny_config(initial_noise=0.25), 1), make().processor
    save_pretrained(policy, tmp_path)
    processor.save(tmp_path)
    assert load_agent(str(tmp_path)).describe()["initial_noise"] == 0.25
    told = load_agent(str(tmp_path), initial_noise=0.0).describe()
    assert (told["initial_noise"], told["initial_noise_of_checkpoint"]) == (0.0, 0.25)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["policy"]["initial_noise"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_agent(str(tmp_path)).initial_noise == 1.0
    assert VlaserConfig.from_dict({}).initial_noise == 1.0


@pytest.mark.parametrize("wrong", [-0.1, 1.1])
def test_bad_scales_are_refused(wrong):
    with pytest.raises(InvalidConfigError, match="initial_noise"):
        make(wrong)
    with pytest.raises(InvalidConfigError, match="initial_noise"):
        tiny_config(initial_noise=wrong)


def test_another_than_the_checkpoints_is_a_departure_from_the_protocol():
    table = published_table(next(iter(REFERENCES)))
    for given, contract, expected in ((0.0, 1.0, True), (0.0, 0.0, False), (1.0, 1.0, False), (1.0, 0.0, True)):
        told = make(given, contract).describe()
        config = {"agent_settings": told, "engine": "mujoco"}
        found = [str(departure) for departure in departures({"tasks": []}, config, table)]
        assert any("initial noise" in text for text in found) == expected, found


def test_a_run_of_before_goes_on_with_the_scale_that_it_had():
    """Runs that do not tell it were made with 1."""
    before = {"agent_settings": {"agent_version": 1}}
    assert not setting_differences(before, {"agent_settings": {"agent_version": 1, "initial_noise": 1.0}})
    changed = setting_differences(before, {"agent_settings": {"agent_version": 1, "initial_noise": 0.0}})
    assert changed == ["agent_settings.initial_noise was 1.0, now 0.0"]
