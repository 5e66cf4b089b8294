from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode

from vlaser_gym.envs.single import SingleLane
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError, InvalidActionError, InvalidConfigError, UnknownNameError
from vlaser_gym.wrappers import (
    ChunkActions,
    LastStepReward,
    RecordStates,
    ResizeImage,
    ScaleActions,
    SelectObservation,
    SubgoalReward,
    TokenizeInstruction,
)

CUBE = "widowx_stack_cube"
SPOON = "widowx_spoon_on_towel"
REST = np.array([0, 0, 0, 0, 0, 0, 1.0])


def lanes(num_envs: int = 1, task: Any = CUBE, **options: Any) -> SceneVectorEnv:
    return SceneVectorEnv(task, num_envs, **{"observe": ("proprio",), **options})


def actions(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    bounds = np.array([0.02, 0.02, 0.02, 0.05, 0.05, 0.05, 1])
    return rng.uniform(-bounds, bounds, (*shape, 7))


@pytest.fixture(scope="module")
def filmed() -> Iterator[SceneVectorEnv]:
    """One environment with images for all tests that look at them: a render process takes seconds to start."""
    env = lanes(1, observe=("image", "proprio", "instruction"), engine_options={"render_processes": 1})
    yield env
    env.close()


# ---------------------------------------------------------------------- ChunkActions


def test_chunk_discounts_inside_and_tells_the_discount_behind(script: Callable[..., None]) -> None:
    script({"success": (2, 3, 5)})
    env = ChunkActions(lanes(2), horizon=4, gamma=0.5)
    env.reset(seed=0)
    chunk = np.broadcast_to(REST, (2, 4, 7))
    _, reward, _, _, info = env.step(chunk)
    assert reward.tolist() == [0.5 + 0.25] * 2  # steps 2 and 3 of the chunk
    assert info["chunk"]["discount"].tolist() == [0.5**4] * 2
    _, reward, *_ = env.step(chunk)
    assert reward.tolist() == [1.0] * 2  # step 5 is the first of the second chunk
    env.close()


def test_a_chunk_that_ends_early_is_discounted_by_the_steps_that_ran(script: Callable[..., None]) -> None:
    script({"success": (3,)})
    env = ChunkActions(lanes(terminate_on_success=True), horizon=4, gamma=0.5)
    env.reset(seed=0)
    _, reward, terminated, _, info = env.step(np.broadcast_to(REST, (1, 4, 7)))
    assert terminated.all()
    assert info["steps"].tolist() == [3]
    assert reward.tolist() == [0.25]
    assert info["chunk"]["discount"].tolist() == [0.125]
    env.close()


def test_chunk_equals_the_same_actions_one_by_one() -> None:
    chunked, plain = ChunkActions(lanes(2), horizon=3), lanes(2)
    chunked.reset(options={"layout": [1, 2]})
    plain.reset(options={"layout": [1, 2]})
    chunk = actions(0, 2, 3)
    ours = chunked.step(chunk)[0]["proprio"]
    for h in range(3):
        theirs = plain.step(chunk[:, h])[0]["proprio"]
    assert np.array_equal(ours, theirs)
    chunked.close()
    plain.close()


@pytest.mark.parametrize("shape", [(2, 7), (2, 3, 7), (1, 4, 7), (2, 4, 6)])
def test_chunk_of_the_wrong_shape(shape: tuple[int, ...]) -> None:
    env = ChunkActions(lanes(2), horizon=4)
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match=r"\(2, 4, 7\); got"):
        env.step(np.zeros(shape))
    env.close()


@pytest.mark.parametrize(("horizon", "gamma"), [(0, 1.0), (4, 1.1), (4, -0.1)])
def test_chunk_settings(horizon: int, gamma: float) -> None:
    with pytest.raises(InvalidConfigError, match="ChunkActions needs"):
        ChunkActions(lanes(), horizon, gamma)


# ---------------------------------------------------------------------- ScaleActions


@pytest.mark.parametrize("order", ["scale outside", "chunk outside"])
def test_scaled_actions_reach_the_robot_in_metres(order: str) -> None:
    scale = (0.02, 0.01, 0.01, 0.1, 0.1, 0.1, 1.0)
    plain = lanes()
    env: Any
    if order == "scale outside":
        env = ScaleActions(ChunkActions(lanes(), 2), scale)
    else:
        env = ChunkActions(ScaleActions(lanes(), scale), 2)
    assert env.action_space.low.min() == -1
    assert env.action_space.high.max() == 1
    env.reset(options={"layout": 0})
    plain.reset(options={"layout": 0})
    units = np.array([[[1, 0, 0, 0, 0, 0, 1], [0, 0.5, 0, 0, 0, 0, -3]]])
    metres = np.array([[[0.02, 0, 0, 0, 0, 0, 1], [0, 0.005, 0, 0, 0, 0, -1]]])
    assert np.array_equal(env.step(units)[0]["proprio"], plain.step_chunk(metres)[0]["proprio"])
    env.close()
    plain.close()


@pytest.mark.parametrize("scale", [(1.0,) * 6, (0.0,) + (1.0,) * 6, (float("nan"),) + (1.0,) * 6])
def test_scale_settings(scale: tuple[float, ...]) -> None:
    with pytest.raises(InvalidConfigError, match="7 numbers above 0"):
        ScaleActions(lanes(), scale)


def test_scaling_does_not_hide_nan() -> None:
    env = ScaleActions(lanes())
    env.reset(seed=0)
    with pytest.raises(InvalidActionError, match="finite"):
        env.step(np.full((1, 7), np.nan))
    env.close()


# ---------------------------------------------------------------------- observations


def test_select_keeps_order_and_final_observations() -> None:
    env = SelectObservation(lanes(2, observe=("proprio", "instruction", "state")), ("state", "instruction"))
    observation, _ = env.reset(seed=0)
    assert list(observation) == ["state", "instruction"]
    assert list(env.single_observation_space.spaces) == ["state", "instruction"]
    *_, truncated, info = env.step_chunk(np.broadcast_to(REST, (2, 60, 7)))
    assert truncated.all()
    assert list(info["final_obs"][1]) == ["state", "instruction"]
    assert env.single_observation_space.contains(info["final_obs"][1])
    env.close()


def test_select_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match="'image'"):
        SelectObservation(lanes(), ("image",))


@pytest.mark.parametrize("channels_first", [False, True])
def test_resize_averages_areas(filmed: SceneVectorEnv, channels_first: bool) -> None:
    env = ResizeImage(filmed, (120, 160), channels_first)
    observation, _ = env.reset(options={"layout": 0})
    assert env.observation_space.contains(observation)
    # 640x480 to 160x120 is 4x4 blocks, of which area averaging takes the mean.
    blocks = np.stack(filmed.render()).reshape(1, 120, 4, 160, 4, 3).mean((2, 4))
    ours = np.moveaxis(observation["image"], 1, -1) if channels_first else observation["image"]
    assert np.abs(ours - blocks).max() <= 0.5 + 1e-9


def test_resize_reaches_final_observations(filmed: SceneVectorEnv) -> None:
    env = ResizeImage(filmed, (48, 64))
    env.reset(options={"layout": 0})
    tilt = np.tile([0.005, 0, 0, 0, 0, 0, 1.0], (1, 60, 1))
    observation, *_, info = env.step_chunk(tilt)
    final = info["final_obs"][0]["image"]
    assert final.shape == (48, 64, 3)
    assert not np.array_equal(final, observation["image"][0])


def test_resize_keeps_the_aspect_that_is_asked_for(filmed: SceneVectorEnv) -> None:
    env = ResizeImage(filmed, (50, 31))
    observation, _ = env.reset(options={"layout": 3})
    full = env.render()[0]
    assert np.array_equal(observation["image"][0], cv2.resize(full, (31, 50), interpolation=cv2.INTER_AREA))


def test_resize_needs_pictures_and_a_size(filmed: SceneVectorEnv) -> None:
    with pytest.raises(UnknownNameError, match="'image'"):
        ResizeImage(lanes(), (10, 10))
    with pytest.raises(InvalidConfigError, match="at least 1 pixel"):
        ResizeImage(filmed, (0, 10))


def test_tokens_of_each_lane_are_its_own_instruction() -> None:
    env = TokenizeInstruction(lanes(2, task=[CUBE, SPOON], observe=("instruction",)), length=50)
    observation, _ = env.reset(seed=0)
    texts = [bytes(i - 1 for i in row if i).decode() for row in observation["instruction"]]
    assert texts == ["stack the green block on the yellow block", "put the spoon on the towel"]
    assert env.observation_space.contains(observation)
    env.close()


def test_tokens_of_a_given_tokenizer() -> None:
    words = {"put": 1, "carrot": 2, "on": 3, "plate": 4}
    env = TokenizeInstruction(
        lanes(task="widowx_carrot_on_plate", observe=("instruction",)),
        length=6,
        tokenizer=lambda text: [words[word] for word in text.split()],
        vocabulary=5,
    )
    observation, _ = env.reset(seed=0)
    assert observation["instruction"].tolist() == [[1, 2, 3, 4, 0, 0]]
    env.close()


def test_tokens_that_do_not_fit() -> None:
    env = TokenizeInstruction(lanes(observe=("instruction",)), length=10)
    with pytest.raises(InvalidConfigError, match="at most 10 ids"):
        env.reset(seed=0)
    env.close()


# ---------------------------------------------------------------------- LastStepReward


@pytest.mark.parametrize(("steps", "earned"), [(range(40, 61), 1.0), (range(40, 60), 0.0), ((), 0.0)])
def test_only_the_last_step_pays_and_the_limit_is_an_end(
    script: Callable[..., None], steps: Any, earned: float
) -> None:
    """60 steps in chunks of 8: the last chunk runs 4 of them, and its last step is worth gamma ** 3 when it begins."""
    script({"success": tuple(steps)})
    env = ChunkActions(LastStepReward(lanes(2)), horizon=8, gamma=0.5)
    env.reset(seed=0)
    results = [env.step(np.broadcast_to(REST, (2, 8, 7))) for _ in range(8)]
    assert [result[1].tolist() for result in results[:-1]] == [[0.0, 0.0]] * 7
    _, reward, terminated, truncated, _ = results[-1]
    assert reward.tolist() == [earned * 0.5**3] * 2
    assert (terminated.all(), truncated.any()) == (True, False)
    assert not any(result[2].any() for result in results[:-1])
    env.close()


# ---------------------------------------------------------------------- SubgoalReward

#: grasp at 3, firm grasp at 7, moved at 9 (then lost again), success at 12
PROGRESS = {
    "ever_grasped": (3, 4, 5),
    "ever_consecutive_grasp": (7,),
    "moved_correct_obj": (9, 10),
    "success": (12,),
}


def discounted_extras(env: SubgoalReward, chunk_length: int, gamma: float, chunks: int) -> tuple[float, int]:
    """Discounted sum of what the wrapper added over an episode of a single environment, and the episode's length."""
    env.reset(seed=0)
    total, step = 0.0, 0
    for _ in range(chunks):
        _, reward, terminated, truncated, info = env.step_chunk(np.broadcast_to(REST, (1, chunk_length, 7)))
        ran = int(info["steps"][0])
        extras = info["chunk"]["reward"][0] - info["chunk"]["flags"]["success"][0]
        assert reward[0] == pytest.approx(info["chunk"]["reward"][0].sum())
        assert not extras[ran:].any()
        total += float((gamma ** (step + np.arange(ran)) * extras[:ran]).sum())
        step += ran
        if terminated[0] or truncated[0]:
            break
    return total, step


@pytest.mark.parametrize("chunk_length", [1, 4, 7])
def test_shaping_pays_when_a_subgoal_is_reached_for_the_first_time(
    script: Callable[..., None], chunk_length: int
) -> None:
    script(PROGRESS)
    env = SubgoalReward(lanes(), gamma=1.0, scale=2.0)
    env.reset(seed=0)
    extras: list[float] = []
    while len(extras) < 14:
        *_, info = env.step_chunk(np.broadcast_to(REST, (1, chunk_length, 7)))
        extras += (info["chunk"]["reward"][0] - info["chunk"]["flags"]["success"][0]).tolist()
    expected = np.zeros(len(extras))
    expected[[2, 6, 8, 11]] = 2.0 / 4
    assert np.allclose(extras, expected)
    env.close()


def test_shaping_weighs_subgoals(script: Callable[..., None]) -> None:
    script(PROGRESS)
    env = SubgoalReward(lanes(), gamma=1.0, scale=2.0, weights={"ever_grasped": 0, "success": 4.0})
    env.reset(seed=0)
    *_, info = env.step_chunk(np.broadcast_to(REST, (1, 14, 7)))
    extras = info["chunk"]["reward"][0] - info["chunk"]["flags"]["success"][0]
    expected = np.zeros(14)
    expected[[6, 8, 11]] = [2 / 6, 2 / 6, 8 / 6]  # weights 0, 1, 1 and 4 of 6; the scale is 2
    assert np.allclose(extras, expected)
    env.close()


@pytest.mark.parametrize(
    ("weights", "error"),
    [
        ({"moved": 1.0}, "Unknown sub-goal of these tasks 'moved'.*moved_correct_obj"),
        ({"success": -1.0}, "weight of sub-goal success must be a number from 0 on; got -1"),
        (dict.fromkeys(PROGRESS, 0.0), "All sub-goals of widowx_stack_cube weigh 0"),
    ],
)
def test_shaping_refuses_weights_that_mean_nothing(weights: dict[str, float], error: str) -> None:
    env = lanes()
    with pytest.raises(GymError, match=error):
        SubgoalReward(env, weights=weights)
    env.close()


@pytest.mark.parametrize("chunk_length", [1, 4, 25])
def test_shaping_telescopes_to_the_kept_potential_of_a_truncated_episode(
    script: Callable[..., None], chunk_length: int
) -> None:
    script({**PROGRESS, "success": ()})
    gamma = 0.97
    env = SubgoalReward(lanes(), gamma=gamma, scale=3.0)
    total, steps = discounted_extras(env, chunk_length, gamma, 60)
    assert steps == 60
    assert total == pytest.approx(gamma**60 * 3.0 * 3 / 4, abs=1e-12)
    env.close()


@pytest.mark.parametrize("chunk_length", [1, 5])
def test_shaping_telescopes_to_zero_when_the_episode_terminates(script: Callable[..., None], chunk_length: int) -> None:
    script(PROGRESS)
    env = SubgoalReward(lanes(terminate_on_success=True), gamma=0.9)
    total, steps = discounted_extras(env, chunk_length, 0.9, 60)
    assert steps == 12
    assert total == pytest.approx(0.0, abs=1e-12)
    env.close()


def test_shaping_telescopes_to_zero_when_truncation_is_the_end(script: Callable[..., None]) -> None:
    script({**PROGRESS, "success": ()})
    env = SubgoalReward(lanes(), gamma=0.9, zero_when_truncated=True)
    total, steps = discounted_extras(env, 10, 0.9, 60)
    assert steps == 60
    assert total == pytest.approx(0.0, abs=1e-12)
    env.close()


def test_shaping_starts_anew_with_every_episode(script: Callable[..., None]) -> None:
    script({"ever_grasped": (1,)})
    env = SubgoalReward(lanes(2), gamma=1.0)
    env.reset(seed=0)
    rest = np.broadcast_to(REST, (2, 1, 7))
    assert env.step_chunk(rest)[1].tolist() == [0.25, 0.25]
    env.reset(options={"reset_mask": [False, True]})
    assert env.step_chunk(rest)[1].tolist() == [0.0, 0.25]
    *_, truncated, _ = env.step_chunk(np.broadcast_to(REST, (2, 58, 7)))
    assert truncated.tolist() == [True, False]
    assert env.step_chunk(rest)[1].tolist() == [0.25, 0.0]  # 0 was reset in the step before, 1 ends now
    assert env.step_chunk(rest)[1].tolist() == [0.0, 0.25]
    env.close()


def test_shaping_is_part_of_a_snapshot(script: Callable[..., None]) -> None:
    script({"ever_grasped": (1, 2, 3)})
    env = SubgoalReward(lanes(), gamma=1.0)
    env.reset(seed=0)
    rest = np.broadcast_to(REST, (1, 1, 7))
    before = env.get_state()
    assert env.step_chunk(rest)[1].tolist() == [0.25]
    after = env.get_state()
    env.set_state(before)
    assert env.step_chunk(rest)[1].tolist() == [0.25]
    env.set_state(after)
    assert env.step_chunk(rest)[1].tolist() == [0.0]
    env.close()


def test_chunk_sum_discounts_the_shaping_too(script: Callable[..., None]) -> None:
    script({"ever_grasped": (2,)})
    env = ChunkActions(SubgoalReward(lanes(), gamma=0.5), horizon=4, gamma=0.5)
    env.reset(seed=0)
    _, reward, *_ = env.step(np.broadcast_to(REST, (1, 4, 7)))
    # F = 0, 0.5/4, -0.5/4, -0.5/4 at discounts 1, 1/2, 1/4, 1/8
    assert reward[0] == pytest.approx(0.5 * 0.125 - 0.25 * 0.125 - 0.125 * 0.125)
    env.close()


# ---------------------------------------------------------------------- RecordStates


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.DISABLED])
def test_recorded_episode_is_what_the_environment_said_step_by_step(mode: AutoresetMode) -> None:
    env = RecordStates(lanes(2, task=[CUBE, SPOON], record_states=True, autoreset_mode=mode, observe=()))
    _, info = env.reset(options={"layout": [3, 4]})
    rows = {name: [value] for name, value in info["initial_states"][0].items()}
    commands = actions(1, 2, 60)
    for h in range(0, 60, 5):
        *_, truncated, info = env.step_chunk(commands[:, h : h + 5])
        for name, values in rows.items():
            values.extend(info["states"][0][name])
    assert truncated.all()
    episode = info["episode_states"][0]
    assert str(info["episode_addresses"][0]) == f"{CUBE}/default/grid:3/0"
    assert set(episode) == {*rows, "action"}
    assert "qpos" in rows
    assert any(name.startswith("object/") for name in rows)
    for name, values in rows.items():
        assert np.array_equal(episode[name], np.array(values)), name
    assert np.array_equal(episode["action"], commands[0])
    assert str(info["episode_addresses"][1]) == f"{SPOON}/default/grid:4/0"
    env.close()


def test_recording_goes_on_with_the_next_episode_and_keeps_lanes_apart() -> None:
    env = RecordStates(lanes(2, record_states=True, observe=()))
    env.reset(options={"layout": [3, 4]})
    env.step_chunk(actions(0, 2, 20))
    env.reset(options={"reset_mask": [False, True], "layout": 9})
    *_, info = env.step_chunk(actions(1, 2, 40))
    assert info["episode_states"][1] is None
    assert info["episode_states"][0]["qpos"].shape == (61, 8)
    second = env.addresses[0]
    *_, info = env.step_chunk(actions(2, 2, 60))
    assert info["episode_states"][1]["qpos"].shape == (61, 8)
    assert str(info["episode_addresses"][1]) == f"{CUBE}/default/grid:9/0"
    assert info["episode_addresses"][0] == second
    env.close()


def test_recording_needs_recorded_states() -> None:
    with pytest.raises(InvalidConfigError, match="record_states=True"):
        RecordStates(lanes())


# ---------------------------------------------------------------------- stacks and single environments


def test_wrappers_serve_single_environments(filmed: SceneVectorEnv) -> None:
    env = SingleLane(ChunkActions(TokenizeInstruction(ResizeImage(filmed, (48, 64)), 50), 4, gamma=0.9))
    observation, _ = env.reset(seed=0, options={"layout": 5})
    assert env.observation_space.contains(observation)
    observation, reward, terminated, truncated, info = env.step(np.broadcast_to(REST, (4, 7)))
    assert env.observation_space.contains(observation)
    assert (reward, terminated, truncated) == (0.0, False, False)
    assert info["chunk"]["ran"].tolist() == [True] * 4
    assert info["chunk"]["discount"] == pytest.approx(0.9**4)
    with pytest.raises(InvalidActionError, match=r"\(4, 7\); got \(7,\)"):
        env.step(np.zeros(7))


def test_single_lane_refuses_several_lanes() -> None:
    with pytest.raises(InvalidConfigError, match="num_envs=1"):
        SingleLane(lanes(2))
