"""The scripted expert solves every layout."""

from __future__ import annotations

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vlaser_gym.agents.base import Agent
from vlaser_gym.agents.scripted import ScriptedExpert
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import resolve
from vlaser_gym.envs.vector import STATE_FIELDS, SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError


def successes(task: str, layouts: list[str]) -> np.ndarray:
    """Success at the last step of the full episode, per layout."""
    env = SceneVectorEnv(task, len(layouts), observe=("state",), autoreset_mode=AutoresetMode.DISABLED)
    try:
        observation, _ = env.reset(options={"layout": layouts})
        expert, lanes = ScriptedExpert(), np.arange(len(layouts))
        expert.reset(lanes, env.addresses)
        while not env.ended.all():
            observation, *_, info = env.step_chunk(expert.act(observation, lanes))
        return info["success"]
    finally:
        env.close()


@pytest.mark.parametrize("task", resolve("widowx"))
def test_grid_layouts_are_solved(task: str) -> None:
    assert successes(task, [f"grid:{k}" for k in range(0, 24, 4)]).sum() >= 5


@pytest.mark.slow
@pytest.mark.parametrize("task", resolve("widowx"))
def test_every_grid_layout_is_solved(task: str) -> None:
    needed = 18 if task == "widowx_spoon_on_towel" else 23
    assert successes(task, [f"grid:{k}" for k in range(24)]).sum() >= needed


@pytest.mark.slow
@pytest.mark.parametrize("task", resolve("widowx"))
def test_region_layouts_are_solved(task: str) -> None:
    assert successes(task, [f"region:{k}" for k in range(96)]).mean() >= 0.85


def test_actions_stay_within_the_scripts_steps() -> None:
    env = SceneVectorEnv("widowx_stack_cube", 2, observe=("state",))
    observation, _ = env.reset(options={"layout": [0, 5]})
    expert, lanes = ScriptedExpert(), np.arange(2)
    assert isinstance(expert, Agent)
    expert.reset(lanes, env.addresses)
    for _ in range(12):
        actions = expert.act(observation, lanes)
        assert actions.shape == (2, 1, 7)
        assert (np.linalg.norm(actions[..., :3], axis=-1) <= 0.03 + 1e-9).all()
        assert (np.linalg.norm(actions[..., 3:6], axis=-1) <= 0.25 + 1e-9).all()
        observation, *_ = env.step_chunk(actions)
    env.close()


def course(task: str, layouts: list[str], steps: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """TCP ``[T, L, 3]``, heading ``[T, L]`` of the gripper's closing axis and the observed states ``[T, L, 26]``."""
    env = SceneVectorEnv(task, len(layouts), observe=("state",), autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = env.reset(options={"layout": layouts})
    expert, lanes = ScriptedExpert(), np.arange(len(layouts))
    expert.reset(lanes, env.addresses)
    states = []
    for _ in range(steps):
        states.append(np.array(observation["state"], np.float64))
        observation, *_ = env.step_chunk(expert.act(observation, lanes))
    env.close()
    seen = np.array(states)
    w, x, y, z = np.moveaxis(seen[..., 3:7], -1, 0)
    # The gripper closes along its own y axis.
    return seen[..., :3], np.arctan2(2 * (w * z - x * y), 1 - 2 * (x * x + z * z)), seen


@pytest.mark.parametrize("task", ["widowx_carrot_on_plate", "widowx_spoon_on_towel"])
def test_alike_pictures_are_answered_by_alike_turns(task: str) -> None:
    """Layouts of the grid and those next to them turn the same way; at 90 degrees they once turned either way."""
    layouts = [f"grid:{k}" for k in range(24)]
    _, headings, _ = course(task, layouts, 12)
    turns = np.rad2deg(np.angle(np.exp(1j * (headings[-1] - headings[0]))))
    assert (np.abs(turns - 90) < 10).sum() == (np.abs(turns) < 10).sum() == 12


def test_the_gripper_has_turned_when_it_arrives_over_the_object() -> None:
    """Over an object that it hides, a gripper that still has to turn looks like one that need not."""
    layouts = [f"region2:{k}" for k in range(12)]
    tcp, headings, seen = course("widowx_carrot_on_plate", layouts, 14)
    source = seen[..., 8:11]
    near = np.linalg.norm((tcp - source)[..., :2], axis=-1) < 0.015
    assert near.any(0).all()
    for lane, first in enumerate(near.argmax(0)):
        left = np.angle(np.exp(1j * (headings[-1, lane] - headings[first, lane])))
        assert abs(left) < 0.25, (lane, left)


def test_a_miss_on_purpose_is_not_taught_and_the_next_grasp_succeeds() -> None:
    """While nothing is taught, the fingers close beside where the carrot lay, as far away as the settings say."""
    task, layouts = "widowx_carrot_on_plate", [f"region2:{7_000_000 + k}" for k in range(4)]
    env = SceneVectorEnv(task, len(layouts), observe=("state",), autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = env.reset(options={"layout": layouts})
    expert, lanes = ScriptedExpert({"probability": 0.0, "misses": 1.0}), np.arange(len(layouts))
    expert.reset(lanes, env.addresses)
    taught, closing, beside = [], [], []
    # A finger that comes down on the carrot moves it.
    lay = observation["state"][:, STATE_FIELDS["source"]][:, :2].copy()
    while not env.ended.all():
        actions = expert.act(observation, lanes)
        offset = observation["state"][:, :2] - lay
        taught.append(expert.teaches(lanes))
        closing.append(actions[:, 0, 6] < 0)
        beside.append(np.linalg.norm(offset, axis=-1))
        observation, *_, info = env.step_chunk(actions)
    env.close()
    first = np.argmax(closing, axis=0)
    assert not any(np.asarray(taught)[: step + 1, lane].any() for lane, step in enumerate(first))
    distances = np.asarray(beside)[first, lanes]
    assert ((distances > 0.015) & (distances < 0.06)).all()
    assert np.asarray(taught)[-1].all()
    assert info["success"].sum() >= 3


@pytest.mark.parametrize(("share", "closes"), [(0.0, True), (1.0, False)])
def test_a_noticed_miss_leaves_the_fingers_open(share: float, closes: bool) -> None:
    task = "widowx_stack_cube"
    env = SceneVectorEnv(task, 2, observe=("state",), autoreset_mode=AutoresetMode.DISABLED)
    observation, _ = env.reset(options={"layout": ["region2:7000000", "region2:7000001"]})
    expert, lanes = ScriptedExpert({"probability": 0.0, "misses": 1.0, "noticed": share}), np.arange(2)
    expert.reset(lanes, env.addresses)
    closed = np.zeros(2, bool)
    for _ in range(20):
        actions = expert.act(observation, lanes)
        closed |= (actions[:, 0, 6] < 0) & ~expert.teaches(lanes)
        observation, *_ = env.step_chunk(actions)
    env.close()
    assert (closed == closes).all()


def test_without_misses_everything_is_taught_and_cabinets_refuse_them() -> None:
    addresses = [Address("widowx_stack_cube", layout=0)]
    expert = ScriptedExpert({"position": 0.01})
    expert.reset(np.arange(1), addresses)
    assert expert.teaches(np.arange(1)).all()
    with pytest.raises(InvalidConfigError, match="leave it 0 before the cabinet"):
        ScriptedExpert({"misses": 0.5}).reset(np.arange(1), [Address("google_robot_open_top_drawer", layout=0)])


@pytest.mark.parametrize("noticed", [0.0, 1.0])
def test_the_google_robot_strays_with_open_fingers_and_then_finds_what_was_named(noticed: float) -> None:
    """Two fifths of the distance at least; nothing is taught until it is there; then it is taught from far away."""
    env = SceneVectorEnv("google_robot_move_near", 2, observe=("state",), engine_options={"threads": 1})
    observation, _ = env.reset(options={"layout": "region2:1000000"})
    lanes = np.arange(2)
    expert = ScriptedExpert({"position": 0.0, "yaw": 0.0, "misses": 1.0, "noticed": noticed, "miss_distance": 0.2})
    expert.reset(lanes, env.addresses)
    turned_at, succeeded = np.full((2, 2), np.nan), np.zeros(2, bool)
    for _ in range(70):
        states = np.array(observation["state"], np.float64)
        away = states[:, :3] - states[:, 8:11]
        actions = expert.act(observation, lanes)
        strays = ~expert.teaches(lanes)
        assert (actions[strays, 0, 6] <= 0).all(), "fingers stay open"
        turns = ~strays & np.isnan(turned_at[:, 0])
        turned_at[turns] = np.stack([np.linalg.norm(away[turns, :2], axis=1), away[turns, 2]], 1)
        observation, *_, info = env.step_chunk(actions)
        succeeded |= np.asarray(info["success"], bool)
    env.close()
    distance, height = turned_at.T
    assert ((distance > 0.05) & (distance < 0.25)).all()
    assert ((height > 0.09) == (noticed == 1)).all()
    assert succeeded.all()
