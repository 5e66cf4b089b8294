"""What a vector environment refuses leaves it as it was."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch

from vlaser_gym.envs.single import SceneEnv
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError, InvalidActionError, InvalidConfigError, UnknownNameError
from vlaser_gym.wrappers import ChunkActions, ScaleActions

CUBE, CARROT = "widowx_stack_cube", "widowx_carrot_on_plate"


def make(num_envs: int = 2, task: str = CUBE, **options: Any) -> SceneVectorEnv:
    return SceneVectorEnv(task, num_envs, observe=("proprio",), **options)


NOT_NUMBERS = [
    [[0.0] * 7, [0.0] * 6],
    [["0.5"] * 7] * 2,
    np.full((2, 7), "left"),
    np.array([[b"1"] * 7] * 2),
    [[None] * 7] * 2,
    "forward",
    {"action": 1},
    torch.zeros(2, 7, requires_grad=True),
    torch.zeros(2, 7, dtype=torch.bfloat16),
    np.zeros((2, 7), "M8[s]"),
    [[10**400] * 7] * 2,
]


@pytest.mark.parametrize("actions", NOT_NUMBERS, ids=range(len(NOT_NUMBERS)))
def test_actions_that_are_no_numbers_are_one_sentence(actions: Any) -> None:
    env = make()
    env.reset(seed=0)
    before = env.get_state()
    for call in (env.step, env.step_chunk, ScaleActions(env).step, ChunkActions(env, 1).step):
        with pytest.raises(InvalidActionError, match="Expected") as caught:
            call(actions)
        assert "\n" not in str(caught.value)
    np.testing.assert_equal(env.get_state()["engine"]["rows"], before["engine"]["rows"])
    env.close()
    single = SceneEnv(CUBE, observe=("proprio",))
    single.reset(seed=0)
    with pytest.raises(InvalidActionError):
        single.step(actions)
    single.close()


def test_tensors_that_numpy_reads_are_actions() -> None:
    env = make()
    env.reset(seed=0)
    env.step(torch.zeros(2, 7))
    env.step([[0] * 7] * 2)
    env.step(np.zeros((2, 7), object))
    env.close()


@pytest.mark.parametrize(
    "options",
    [
        {"layout": "grid:99999"},
        {"variant": "no such"},
        {"task": [CUBE, "no such"]},
        {"trial": -1},
        {"layot": 3},
        {"layout": [0]},
        {"variant": ["default", "no such"]},
    ],
)
@pytest.mark.parametrize("seed", [None, 5])
def test_a_refused_reset_draws_nothing(options: dict[str, Any], seed: int | None) -> None:
    """The next reset brings the layouts that it would have brought without the refused one."""
    refused, undisturbed = make(), make()
    for env in (refused, undisturbed):
        env.reset(seed=3)
    with pytest.raises(GymError):
        refused.reset(seed=seed, options=options)
    for env in (refused, undisturbed):
        env.reset()
        env.reset()
    assert refused.addresses == undisturbed.addresses
    for env in (refused, undisturbed):
        env.close()


def foreign_states(state: dict[str, Any]) -> list[Any]:
    """Snapshots with one thing wrong."""
    broken = [{}, [], None, {"lanes": 3}, {"lanes": []}, {**state, "engine": {}}, {**state, "controller": None}]
    broken += [{**state, "engine": {"keys": state["engine"]["keys"], "rows": [np.zeros(3), np.zeros(3)]}}]
    broken += [{**state, "lanes": [{}, {}]}, {**state, "lanes": ["a", "b"]}]
    short = copy.deepcopy(state)
    del short["lanes"][1][next(iter(short["lanes"][1]))]
    return [*broken, short]


def test_a_foreign_snapshot_is_one_sentence_and_changes_nothing() -> None:
    env, undisturbed = make(), make()
    for each in (env, undisturbed):
        each.reset(seed=1)
        each.step(np.full((2, 7), 0.01))
    state = env.get_state()
    for foreign in foreign_states(state):
        with pytest.raises(InvalidConfigError) as caught:
            env.set_state(foreign)
        assert "\n" not in str(caught.value)
    other = make(task=CARROT)
    other.reset(seed=1)
    with pytest.raises(UnknownNameError, match="task of this environment"):
        env.set_state(other.get_state())
    three = make(3)
    three.reset(seed=1)
    with pytest.raises(InvalidConfigError, match="has 3 environments; this vector environment 2"):
        env.set_state(three.get_state())
    for _ in range(3):
        got, expected = (each.step(np.full((2, 7), 0.01)) for each in (env, undisturbed))
        np.testing.assert_array_equal(got[0]["proprio"], expected[0]["proprio"])
    np.testing.assert_equal(env.get_state()["engine"]["rows"], undisturbed.get_state()["engine"]["rows"])
    for each in (env, undisturbed, other, three):
        each.close()


def test_a_foreign_snapshot_before_the_first_reset() -> None:
    env = make()
    with pytest.raises(InvalidConfigError):
        env.set_state({})
    env.reset(seed=0)
    env.close()
