from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import NEAR, STEPS, FakeVectorEnv, Reacher

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import AgentError, InvalidActionError
from vlaser_gym.evaluation.plan import plan_episodes
from vlaser_gym.evaluation.runner import EpisodeResult, Runner

CARROT, CUBE = "widowx_carrot_on_plate", "widowx_stack_cube"
PLAN = plan_episodes([get_task(CARROT), get_task(CUBE)], episodes=6, trials=2)


def run(plan: list[Address] = PLAN, num_envs: int = 4, agent: Any = None, **options: Any) -> list[EpisodeResult]:
    env = FakeVectorEnv([CARROT, CUBE], num_envs, options.pop("observe", Reacher.observes), **options)
    return list(Runner(env, agent or Reacher(), plan))


def by_address(results: list[EpisodeResult]) -> dict[Address, EpisodeResult]:
    return {result.address: result for result in results}


def test_every_address_is_run_once() -> None:
    assert sorted(map(str, (r.address for r in run()))) == sorted(map(str, PLAN))


def test_lanes_are_refilled_at_once() -> None:
    """Equal episodes on 4 environments: 24 of them take 6 rounds, and all environments act in every round."""
    agent = Reacher(horizon=5)
    run(agent=agent)
    assert agent.seen == [4] * (24 // 4) * (STEPS // 5)


def test_the_last_lanes_run_dry_without_being_acted_for() -> None:
    agent = Reacher(horizon=5)
    run(PLAN[:6], agent=agent)
    assert agent.seen == [4, 4, 2, 2]


@pytest.mark.parametrize("terminate", [False, True])
@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_results_do_not_depend_on_the_number_of_lanes(num_envs: int, terminate: bool) -> None:
    one, many = (by_address(run(num_envs=n, terminate_on_success=terminate)) for n in (2, num_envs))
    for address, expected in one.items():
        got = many[address]
        assert (got.success, got.success_any, got.steps, got.ending) == (
            expected.success,
            expected.success_any,
            expected.steps,
            expected.ending,
        )
        for name, values in expected.trajectory.items():
            np.testing.assert_array_equal(got.trajectory[name], values, err_msg=f"{address} {name}")


def test_a_result_says_what_its_trajectory_shows() -> None:
    """Recompute success from the recorded positions, and the positions from the recorded actions."""
    results = run(terminate_on_success=False)
    outcomes = {(r.success, r.success_any) for r in results}
    assert {(True, True), (False, False)} <= outcomes, "the fake must produce both kinds of episodes"
    for r in results:
        path, goal = r.trajectory["qpos"][:, :3], r.trajectory[f"object/{get_task(r.address.task).objects[0].name}"]
        assert path.shape == (STEPS + 1, 3)
        np.testing.assert_allclose(path[1:], path[0] + np.cumsum(r.trajectory["action"][:, :3], 0), atol=1e-12)
        near = np.linalg.norm(path[1:] - goal[1:, :3], axis=1) < NEAR
        np.testing.assert_array_equal(r.trajectory["flag/success"], near)
        assert (r.success, r.success_any, r.steps) == (near[-1], near.any(), STEPS)
        assert r.first_success_step == (int(np.flatnonzero(near)[0]) + 1 if near.any() else None)
        assert r.reward == near.sum()
        assert r.flags["success"] == near[-1]
        assert r.flags_any["success"] == near.any()
        assert r.flags_any["moved_correct_obj"]


def test_decisions_mark_the_chunks_and_an_early_end_cuts_the_last() -> None:
    results = run(agent=Reacher(horizon=4), terminate_on_success=True)
    early = [r for r in results if r.ending == "terminated"]
    assert early
    for r in results:
        assert r.trajectory["decision"].tolist() == list(range(0, r.steps, 4))
        assert r.trajectory["action"].shape == (r.steps, 7)
    for r in early:
        assert r.success
        assert r.steps == r.first_success_step


def test_flags_of_other_tasks_in_the_batch_are_left_out() -> None:
    for r in run():
        assert set(r.flags) == set(get_task(r.address.task).flags)


def test_stop_begins_nothing_new_and_ends_what_runs() -> None:
    asked = iter([False, False, True, True, True])
    env = FakeVectorEnv([CARROT, CUBE], 4, Reacher.observes)
    results = list(Runner(env, Reacher(horizon=5), PLAN, stop=lambda: next(asked)))
    assert len(results) == 8
    assert all(r.steps == STEPS for r in results)


def nan_on_lane_two(actions: np.ndarray) -> np.ndarray:
    actions[2, 1, 4] = np.nan
    return actions


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            nan_on_lane_two,
            r"mine\.act .* not finite for environment 2, episode widowx_carrot_on_plate/default/grid:2/0, after 0",
        ),
        (lambda a: a[:, 0], r"mine\.act must return .* shape \(4, H, 7\); got shape \(4, 7\)"),
        (lambda a: a[..., :6], r"shape \(4, H, 7\); got shape \(4, 3, 6\)"),
        (lambda a: a[:3], r"got shape \(3, 3, 7\)"),
        (lambda a: a[:, :0], r"got shape \(4, 0, 7\)"),
        (lambda a: None, r"got a NoneType"),
        (lambda a: "hello", "got a str"),
    ],
)
def test_bad_actions_name_the_agent(spoil: Callable[[np.ndarray], Any], message: str) -> None:
    class Spoiled(Reacher):
        def act(self, observations: Any, lanes: Any) -> Any:
            return spoil(super().act(observations, lanes))

    env = FakeVectorEnv([CARROT, CUBE], 4, Reacher.observes)
    with pytest.raises(InvalidActionError, match=message):
        list(Runner(env, Spoiled(), PLAN, name="mine"))


def test_an_agent_that_raises_is_named() -> None:
    class Broken(Reacher):
        def act(self, observations: Any, lanes: Any) -> Any:
            raise KeyError("image")

    with pytest.raises(AgentError, match=r"agent\.act raised KeyError \('image'\); its traceback") as caught:
        run(agent=Broken())
    assert 'raise KeyError("image")' in caught.value.trace


@pytest.mark.parametrize("method", ["reset", "subtask_done"])
def test_so_is_one_that_raises_elsewhere(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Reacher, method, lambda *_: {}["x"], raising=False)
    with pytest.raises(AgentError, match=rf"agent\.{method} raised KeyError"):
        run()


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda n: torch.zeros(n, 4, 7, requires_grad=True), "detach"),
        (lambda n: torch.zeros(n, 4, 7, dtype=torch.bfloat16), "BFloat16"),
        (lambda n: [[["left"] * 7] * 4] * n, "could not convert string"),
        (lambda n: [[[0.0] * 7, [0.0] * 6]] * n, "inhomogeneous"),
    ],
)
def test_an_answer_that_numpy_cannot_read_is_one_sentence(answer: Callable[[int], Any], said: str) -> None:
    class Mine(Reacher):
        def act(self, observations: Any, lanes: Any) -> Any:
            return answer(len(lanes))

    with pytest.raises(InvalidActionError, match=r"chunk of actions per environment, shape \(4, H, 7\); got") as caught:
        run(agent=Mine())
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
