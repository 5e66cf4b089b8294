from __future__ import annotations

import numpy as np
import pytest

from vlaser_gym import cli
from vlaser_gym.agents import ablated, make_agent
from vlaser_gym.agents.ablated import AblatedAgent, other_instruction
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import GOOGLE_TASKS, get_task, resolve, task_names
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

#: What WidowX's tasks say, and what published ablations of nano were told instead: the next one.
SENTENCES = (
    "put carrot on plate",
    "put the spoon on the towel",
    "stack the green block on the yellow block",
    "put eggplant into yellow basket",
)


class Listener:
    robot = "google_robot"

    def __init__(self, observes=("image", "instruction")) -> None:
        self.observes = observes

    def reset(self, lanes, addresses) -> None:
        pass

    def act(self, observations, lanes):
        self.heard = observations
        return np.zeros((len(lanes), 1, 7))

    def subtask_done(self, lanes):
        return np.ones(len(lanes), bool)


@pytest.fixture
def listener(monkeypatch):
    made = Listener()
    monkeypatch.setattr(ablated, "make_agent", lambda config: made)
    return made


def filtered(listener, told, tasks=None, **how):
    agent = AblatedAgent("random", **how)
    lanes = np.arange(len(told))
    agent.reset(lanes, [Address(task) for task in tasks or ["widowx_stack_cube"] * len(told)])
    images = lanes.astype(np.uint8)[:, None, None, None] + np.zeros((1, 2, 2, 3), np.uint8)
    agent.act({"image": images, "instruction": told}, lanes)
    return listener.heard["image"][:, 0, 0, 0].tolist(), listener.heard["instruction"]


def test_pictures_change_places_within_an_instruction(listener):
    assert filtered(listener, ("a", "b", "a", "a", "c"), image="swap") == (
        [3, 127, 0, 2, 127],
        ("a", "b", "a", "a", "c"),
    )


def test_blank_pictures_and_true_ones(listener):
    assert filtered(listener, ("a", "b"), image="blank")[0] == [127, 127]
    assert filtered(listener, ("a", "b")) == ([0, 1], ("a", "b"))


def test_every_widowx_instruction_is_exchanged_for_another_ones(listener):
    tasks = resolve("widowx")
    told = tuple(get_task(name).instruction("grid:0") for name in tasks)
    assert told == SENTENCES
    assert filtered(listener, told, tasks, instruction="other")[1] == SENTENCES[1:] + SENTENCES[:1]
    assert filtered(listener, told, tasks, instruction="empty")[1] == ("",) * 4


@pytest.mark.parametrize("layout", ["grid:0", "grid:8", "region:3"])
def test_on_the_google_robot_another_instruction_is_one_of_the_google_robots(listener, layout):
    """It used to be a sentence of the WidowX, on which every sentence is another robot's."""
    known = {
        task.instruction(f"grid:{k}", stage=stage)
        for task in GOOGLE_TASKS
        for k in range(task.num_layouts)
        for stage in (0, 1)
    }
    for stage in (0, 1):
        tasks = resolve("google_robot")
        told = tuple(get_task(name).instruction(layout, stage=stage) for name in tasks)
        heard = filtered(listener, told, tasks, instruction="other")[1]
        assert set(heard) <= known
        assert all(mine != other for mine, other in zip(told, heard, strict=True))
        assert len(set(heard)) > 4, "not one sentence for everybody"


def test_what_is_other_depends_on_nothing_but_the_episode():
    first = [other_instruction(get_task(name).instruction("grid:0"), name) for name in task_names()]
    assert first == [other_instruction(get_task(name).instruction("grid:0"), name) for name in task_names()]


def test_an_unknown_task_has_no_other(listener):
    agent = AblatedAgent("random", instruction="other")
    with pytest.raises(InvalidConfigError, match=r"got 'remote': let the client send the episode's address"):
        agent.reset(np.array([0]), [Address("remote")])


def test_unknown_filters_are_refused():
    with pytest.raises(UnknownNameError, match="swap"):
        AblatedAgent("random", image="mirror")
    for wrong in (False, None, 1):
        with pytest.raises(UnknownNameError, match=r"agent\.image .*: expected one of 3 names; nearest: "):
            AblatedAgent("random", image=wrong)


def test_what_the_agent_does_not_read_is_not_filtered():
    with pytest.raises(InvalidConfigError, match="expert reads no image"):
        AblatedAgent("expert", image="blank")
    assert AblatedAgent("expert").observes == ("state",)


@pytest.mark.parametrize("value", ["true", "'true'"])
def test_the_word_true_may_be_given_without_quotes(value):
    """YAML reads it as a truth value; the documents write the word."""
    config = cli.load("eval", ["agent=ablated", "agent.agent=random", f"agent.image={value}"])
    assert config == cli.load("eval", ["agent=ablated", "agent.agent=random"])
    assert config.agent.name == "ablated-true-image-true-instruction"
    assert make_agent(config.agent).image == "true"
    assert AblatedAgent("random", image=True, instruction=True).instruction == "true"


def test_it_is_what_the_other_agent_is(listener):
    """A task's second stage, and the robot that the agent is for, do not get lost."""
    agent = AblatedAgent("random", image="blank")
    assert agent.subtask_done(np.arange(2)).tolist() == [True, True]
    assert agent.robot == "google_robot"
    assert not hasattr(agent, "decided")


def test_its_config_builds_it():
    assert isinstance(make_agent("ablated"), AblatedAgent)
