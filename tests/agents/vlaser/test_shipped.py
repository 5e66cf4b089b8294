"""Which policy of the package acts where no checkpoint is given."""

from __future__ import annotations

from typing import Any

import pytest

from vlaser_gym import cli
from vlaser_gym.agents import make_agent
from vlaser_gym.agents.vlaser import agent as agents
from vlaser_gym.agents.vlaser import shipped
from vlaser_gym.commands.agent_findings import examine_agent
from vlaser_gym.commands.collect import CollectSettings
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.evaluator import EvalSettings
from vlaser_gym.evaluation.store import setting_differences

PICK = "google_robot_pick_coke_can"


def scored(*overrides: str) -> dict[str, Any]:
    """The agent that an evaluation keeps."""
    return EvalSettings.from_config(cli.load("eval", list(overrides))).stored()["agent"]


@pytest.mark.parametrize("agent", ["vlaser", "vlaser_nano", "vlaser_explore", "ablated"])
def test_it_is_that_of_the_robot_of_the_tasks(agent: str) -> None:
    assert scored(f"agent={agent}", "task=widowx")["checkpoint"] == "nano"
    assert scored(f"agent={agent}", f"task={PICK}")["checkpoint"] == "nano-google"
    assert scored(f"agent={agent}", "task=google_robot", "agent.checkpoint=mine")["checkpoint"] == "mine"


def test_a_protocol_of_both_robots_begins_with_widowx() -> None:
    assert scored("protocol=visual_matching")["checkpoint"] == "nano"
    assert scored("protocol=variant_aggregation")["checkpoint"] == "nano-google"


def test_other_agents_get_none() -> None:
    assert "checkpoint" not in scored("agent=expert", f"task={PICK}")
    assert scored("agent=sb3", f"task={PICK}")["checkpoint"] is None
    assert "checkpoint" not in scored("agent=ablated", "agent.agent=expert", f"task={PICK}")
    assert scored("agent=vlaser", f"task={PICK}", "checkpoint=mine")["checkpoint"] is None, "checkpoint= counts"


def test_every_command_builds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    collected = CollectSettings.from_config(cli.load("collect", ["agent=vlaser", f"task={PICK}"]))
    assert make_agent(collected.agent).robot == "google_robot"
    for robot in ("widowx", "google_robot"):
        config = shipped.with_checkpoint({"_target_": f"{agents.__name__}.load_agent"}, None, robot)
        assert make_agent(config).robot == agents.load_agent(robot=robot).robot == robot
    monkeypatch.setattr("vlaser_gym.commands.agent_findings._flown", lambda robot, conversion: None)
    found = list(examine_agent({"_target_": f"{agents.__name__}.load_agent"}, "google_robot"))
    assert [finding.works for finding in found if finding is not None] == [True, True, True]


def test_a_robot_without_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shipped, "SHIPPED_NAMES", ("nano", "nano-sft"))
    said = (
        r"^Without checkpoint= a policy of the package acts, which has none for google_robot \(only for widowx\): give "
    )
    with pytest.raises(InvalidConfigError, match=said):
        scored(f"task={PICK}")
    assert scored(f"task={PICK}", "checkpoint=FOLDER")["checkpoint"] is None


def test_each_belongs_to_its_robot() -> None:
    for robot, name in shipped.DEFAULT_OF_ROBOT.items():
        assert agents.load_agent(name).robot == robot


@pytest.mark.parametrize("given", [None, "runs/mine/checkpoint"])
def test_runs_of_before_go_on(given: str | None) -> None:
    """When the default agent's file said nano itself, also beside a checkpoint= that took its place."""
    now = {"checkpoint": given, "agent": scored("task=widowx", *(() if given is None else [f"checkpoint={given}"]))}
    before = {"checkpoint": given, "agent": {**now["agent"], "checkpoint": "nano"}}
    assert setting_differences(before, now) == []
    around = scored("agent=ablated", "task=widowx")
    assert (
        setting_differences({"agent": {k: v for k, v in around.items() if k != "checkpoint"}}, {"agent": around}) == []
    )
