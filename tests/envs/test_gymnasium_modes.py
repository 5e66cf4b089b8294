"""Gymnasium's own rules on our ids: autoreset modes, step limits, infos, attributes, pickles, checkers, wrappers."""

from __future__ import annotations

import copy
import pickle
import warnings
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.error import ResetNeeded
from gymnasium.utils.env_checker import check_env as check_gymnasium
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from gymnasium.vector.utils import batch_space
from gymnasium.wrappers import vector as wrappers
from stable_baselines3.common.env_checker import check_env as check_sb3

from vlaser_gym.envs.single import SceneEnv
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.wrappers import ArrayObservation, RecordStates, ScaleActions, ScaledAction, StateEnv, SubgoalReward

CUBE, CARROT = "widowx_stack_cube", "widowx_carrot_on_plate"
ID, STATE_ID = f"vlaser_gym/{CUBE}", f"vlaser_gym/{CUBE}-state"
LIMIT = 60


def lanes(mode: AutoresetMode, num_envs: int = 2, **options: Any) -> SceneVectorEnv:
    return SceneVectorEnv(CUBE, num_envs, observe=("proprio",), autoreset_mode=mode, **options)


def still(num_envs: int = 2, horizon: int | None = None) -> np.ndarray:
    return np.zeros((num_envs, 7) if horizon is None else (num_envs, horizon, 7))


# ---------------------------------------------------------------------- autoreset


def test_next_step_begins_the_next_episode_one_step_later() -> None:
    env = lanes(AutoresetMode.NEXT_STEP, max_episode_steps=3)
    env.reset(seed=1, options={"layout": [0, 1]})
    first = env.addresses
    for _ in range(2):
        *_, truncated, _ = env.step(still())
        assert not truncated.any()
    end, _, _, truncated, info = env.step(still())
    assert truncated.all()
    assert info["elapsed_steps"].tolist() == [3, 3]
    assert env.addresses == first, "the environments still stand at their end"
    assert "final_obs" not in info
    begun, reward, terminated, truncated, info = env.step(np.full((2, 7), np.nan))  # actions are not looked at
    assert info["elapsed_steps"].tolist() == info["steps"].tolist() == [0, 0]
    assert not np.stack([reward, terminated, truncated, info["success_any"]]).any()
    assert not np.array_equal(begun["proprio"], end["proprio"])
    *_, info = env.step(still())
    assert info["elapsed_steps"].tolist() == [1, 1]
    env.close()


def test_every_mode_runs_the_same_episodes() -> None:
    """Layouts and motions are the environments' own; the modes differ in when an episode begins, and DISABLED is told
    to.
    """
    seen: dict[AutoresetMode, list[Any]] = {}
    for mode in AutoresetMode:
        env = lanes(mode, max_episode_steps=2)
        observation, _ = env.reset(seed=5)
        rows = [(str(env.addresses[0]), observation["proprio"][0].tolist())]
        while len(rows) < 7:
            before = env.addresses
            observation, _, terminated, truncated, info = env.step(still() + 0.01)
            done = terminated | truncated
            if mode is AutoresetMode.SAME_STEP and done[0]:
                rows.append((str(before[0]), info["final_obs"][0]["proprio"].tolist()))
            if mode is AutoresetMode.DISABLED and done.any():
                rows.append((str(env.addresses[0]), observation["proprio"][0].tolist()))
                observation, _ = env.reset(options={"reset_mask": done})
            rows.append((str(env.addresses[0]), observation["proprio"][0].tolist()))
        seen[mode] = rows[:7]
        env.close()
    assert seen[AutoresetMode.NEXT_STEP] == seen[AutoresetMode.SAME_STEP] == seen[AutoresetMode.DISABLED]


def test_next_step_in_chunks_and_under_our_wrappers() -> None:
    """An environment that ends inside a chunk stops there; the next chunk begins its episode and runs nothing on it."""
    env = lanes(AutoresetMode.NEXT_STEP, max_episode_steps=5, record_states=True)
    stack = RecordStates(SubgoalReward(env))
    stack.reset(seed=0, options={"layout": [0, 1]})
    *_, info = stack.step_chunk(still(horizon=3))
    assert info["steps"].tolist() == [3, 3]
    *_, truncated, info = stack.step_chunk(still(horizon=3))
    assert truncated.all()
    assert info["steps"].tolist() == [2, 2]
    assert [states["action"].shape for states in info["episode_states"]] == [(5, 7)] * 2
    *_, truncated, info = stack.step_chunk(still(horizon=3))
    assert info["steps"].tolist() == [0, 0]
    assert info["episode_states"] == [None, None]
    stack.step_chunk(still(horizon=3))
    *_, info = stack.step_chunk(still(horizon=3))
    assert [states["action"].shape for states in info["episode_states"]] == [(5, 7)] * 2
    assert [len(states["qpos"]) for states in info["episode_states"]] == [6, 6]
    env.close()


def test_gymnasium_s_own_vector_environment_sees_the_same() -> None:
    """SyncVectorEnv over our single environments, and our environments, step by step through two episodes."""
    single = SyncVectorEnv([lambda: gymnasium.make(ID, observe="proprio", max_episode_steps=3)] * 2)
    ours = gymnasium.make_vec(ID, num_envs=2, observe="proprio", max_episode_steps=3)
    assert single.metadata["autoreset_mode"] is ours.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert single.single_observation_space == ours.single_observation_space
    for env in (single, ours):
        env.reset(seed=3)
    actions = np.random.default_rng(0).normal(0, 0.01, (9, 2, 7)).astype(np.float32)
    for action in actions:
        a, b = single.step(action), ours.step(action)
        for x, y in zip(a[1:4], b[1:4], strict=True):
            np.testing.assert_array_equal(x, y)
        np.testing.assert_array_equal(a[0]["proprio"], b[0]["proprio"])
        for name in ("success", "is_success", "elapsed_steps", "steps"):
            assert a[4][name].dtype != object, name
            np.testing.assert_array_equal(a[4][name], b[4][name])
    single.close()
    ours.close()


@pytest.mark.parametrize("mode", ["Sideways", 3])
def test_no_such_mode(mode: Any) -> None:
    with pytest.raises(UnknownNameError, match=r"autoreset_mode.*NextStep"):
        lanes(mode)


# ---------------------------------------------------------------------- limits, infos


def test_every_id_says_its_step_limit() -> None:
    for name in task_names():
        for identifier in (f"vlaser_gym/{name}", f"vlaser_gym/{name}-state"):
            assert gymnasium.spec(identifier).max_episode_steps == get_task(name).max_steps


@pytest.mark.parametrize("identifier", [ID, STATE_ID])
def test_step_limits_are_honoured(identifier: str) -> None:
    options = {} if identifier == STATE_ID else {"observe": "proprio"}
    for limit, given in ((4, {"max_episode_steps": 4}), (LIMIT, {})):
        env = gymnasium.make(identifier, **options, **given)
        assert env.spec.max_episode_steps == limit
        env.reset(seed=0)
        ends = [env.step(np.zeros(7, np.float32))[3] for _ in range(limit)]
        assert ends == [False] * (limit - 1) + [True]
        env.close()
        many = gymnasium.make_vec(identifier, num_envs=2, **options, **given)
        assert many.spec.max_episode_steps == LIMIT
        many.reset(seed=0)
        ends = [many.step(np.zeros((2, 7), np.float32))[3].all() for _ in range(limit)]
        assert ends == [False] * (limit - 1) + [True]
        many.close()


def test_tasks_of_a_batch_keep_their_own_limits() -> None:
    env = SceneVectorEnv([CUBE, "widowx_put_eggplant_in_basket"], 2, observe="proprio", max_episode_steps=LIMIT)
    assert env.get_attr("max_episode_steps") == (60, 120)
    env.close()
    with pytest.raises(InvalidConfigError, match="max_episode_steps must be a whole number from 1 on or None; got 0"):
        SceneVectorEnv(CUBE, observe="proprio", max_episode_steps=0)


def plain(value: Any) -> bool:
    if isinstance(value, dict):
        return all(plain(part) for part in value.values())
    if isinstance(value, np.ndarray):
        return value.dtype != object
    return type(value) in (bool, int, float, str)


def test_infos_are_plain() -> None:
    env = SceneEnv(CUBE, observe="proprio")
    _, info = env.reset(seed=0)
    assert plain(info)
    *_, info = env.step(np.zeros(7))
    assert plain(info)
    assert info["is_success"] is info["success"] is False
    env.close()


def test_a_step_past_the_end_says_so() -> None:
    env = SceneEnv(CUBE, observe="proprio", max_episode_steps=2)
    env.reset(options={"layout": 0})
    env.step(np.zeros(7))
    env.step(np.zeros(7))
    with pytest.raises(
        ResetNeeded, match=r"widowx_stack_cube/default/grid:0/0 ended after 2 control steps; call reset"
    ):
        env.step(np.zeros(7))
    env.reset(options={"layout": 0})
    env.step(np.zeros(7))
    env.close()


# ---------------------------------------------------------------------- attributes, pickles


def test_attributes_of_lanes() -> None:
    env = lanes(AutoresetMode.NEXT_STEP)
    env.reset(options={"layout": [3, 4]})
    assert [a.layout for a in env.get_attr("address")] == ["grid:3", "grid:4"]
    assert env.call("instruction") == ("stack the green block on the yellow block",) * 2
    assert env.get_attr("task") == (CUBE, CUBE)
    assert env.get_attr("num_envs") == (2, 2)
    with pytest.raises(UnknownNameError, match=r"Unknown attribute of the environments 'adress'.*address"):
        env.get_attr("adress")
    with pytest.raises(InvalidConfigError, match="no method 'reset' of their own"):
        env.call("reset")
    env.close()


@pytest.mark.parametrize("copied", [pickle.loads, copy.deepcopy])
def test_environments_pickle(copied: Any) -> None:
    """In the middle of an episode; the copy goes on as the original does, to the last bit."""
    env = lanes(AutoresetMode.SAME_STEP, max_episode_steps=6)
    env.reset(seed=9)
    for _ in range(4):
        env.step(still() + 0.01)
    other = copied(pickle.dumps(env)) if copied is pickle.loads else copied(env)
    assert other.addresses == env.addresses
    for _ in range(5):  # over the end of the episode, whose successor the environments' streams draw
        a, b = env.step(still() - 0.01), other.step(still() - 0.01)
        np.testing.assert_array_equal(a[0]["proprio"], b[0]["proprio"])
    assert other.addresses == env.addresses
    env.close()
    other.close()


def test_environments_pickle_before_their_first_reset_and_wrapped() -> None:
    env = pickle.loads(pickle.dumps(gymnasium.make_vec(STATE_ID, num_envs=2)))
    observation, _ = env.reset(seed=0)
    assert observation.shape == (2, 26)
    env.close()
    single = pickle.loads(pickle.dumps(gymnasium.make(ID, observe="proprio")))
    single.reset(seed=0)
    single.close()


@pytest.mark.parametrize("name", task_names())
def test_tasks_pickle(name: str) -> None:
    task = get_task(name)
    again = pickle.loads(pickle.dumps(task))
    assert again.name == task.name
    for layout in ("grid:0", "region:5") if "region" in task.layout_kinds else ("grid:0",):
        poses = [one.layout(layout, "default").object_pose for one in (again, task)]
        np.testing.assert_array_equal(*poses)


# ---------------------------------------------------------------------- arrays


def test_the_state_id_passes_every_checker_as_it_stands() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make(STATE_ID)
        check_sb3(env.unwrapped)
        # The state has no bounds, of which Gymnasium's checker warns.
        warnings.filterwarnings("ignore", message=r".*(minimum|maximum) value.*infinity.*")
        check_gymnasium(env.unwrapped)
    assert isinstance(env.unwrapped, StateEnv)
    assert isinstance(env.observation_space, gymnasium.spaces.Box)
    assert isinstance(env.action_space, gymnasium.spaces.Box)
    env.close()


def test_the_state_id_is_the_scene_s_state_and_scaled_actions() -> None:
    arrays = gymnasium.make_vec(STATE_ID, num_envs=2, action_range=[0.02] * 3 + [0.1] * 3 + [1.0])
    scene = SceneVectorEnv(CUBE, 2, observe="state")
    a, _ = arrays.reset(seed=4)
    b, _ = scene.reset(seed=4)
    np.testing.assert_array_equal(a, b["state"])
    assert arrays.observation_space == batch_space(arrays.single_observation_space, 2)
    for action in np.random.default_rng(1).uniform(-1.5, 1.5, (3, 2, 7)).astype(np.float32):
        clipped = np.clip(action.astype(float), -1, 1) * ([0.02] * 3 + [0.1] * 3 + [1.0])
        np.testing.assert_array_equal(arrays.step(action)[0], scene.step(clipped)[0]["state"])
    arrays.close()
    scene.close()


def test_a_single_environment_s_actions_are_scaled_alike() -> None:
    scaled = ScaledAction(gymnasium.make(ID, observe="proprio"))
    lane = ScaleActions(SceneVectorEnv(CUBE, observe="proprio"))
    scaled.reset(seed=2)
    lane.reset(seed=2)
    action = np.array([0.5, -1, 2, 0.1, 0, 0, 1], np.float32)
    np.testing.assert_array_equal(scaled.step(action)[0]["proprio"], lane.step(action[None])[0]["proprio"][0])
    assert scaled.action_space == gymnasium.spaces.Box(-1.0, 1.0, (7,), np.float32)
    with pytest.raises(InvalidConfigError, match="numbers above 0"):
        ScaledAction(gymnasium.make(ID, observe="proprio"), [1.0] * 6)
    scaled.close()
    lane.close()


def test_one_array_is_made_of_one_observation() -> None:
    with pytest.raises(InvalidConfigError, match="state or proprio alone; got instruction, proprio"):
        ArrayObservation(SceneVectorEnv(CUBE, observe=("proprio", "instruction")))


def test_the_end_s_array_is_in_final_obs() -> None:
    env = gymnasium.make_vec(STATE_ID, num_envs=2, max_episode_steps=2, autoreset_mode=AutoresetMode.SAME_STEP)
    env.reset(seed=0)
    env.step(still())
    *_, info = env.step(still())
    assert [final.shape for final in info["final_obs"]] == [(26,), (26,)]
    env.close()


# ---------------------------------------------------------------------- Gymnasium's vector wrappers


def test_filter_and_flatten() -> None:
    env = gymnasium.make_vec(ID, num_envs=2, observe=("proprio", "state"))
    env = wrappers.FlattenObservation(wrappers.FilterObservation(env, ["state"]))
    observation, _ = env.reset(seed=0)
    assert observation.shape == (2, 26)
    assert env.observation_space.contains(observation)
    assert env.step(still())[0].shape == (2, 26)
    env.close()


def test_normalize_observation_and_reward() -> None:
    env = gymnasium.make_vec(STATE_ID, num_envs=2, max_episode_steps=4)
    env = wrappers.NormalizeReward(wrappers.NormalizeObservation(env))
    env.reset(seed=0)
    raw = gymnasium.make_vec(STATE_ID, num_envs=2, max_episode_steps=4)
    seen = [raw.reset(seed=0)[0]]
    for _ in range(9):
        observation, reward, *_ = env.step(still())
        seen.append(raw.step(still())[0])
    # Running mean and variance of all rows, with Gymnasium's first count of 1e-4 around mean 0 and variance 1.
    rows = np.concatenate(seen).astype(np.float64)
    weight = 1e-4 + len(rows)
    mean = rows.sum(0) / weight
    spread = (1e-4 + len(rows) * rows.var(0) + rows.mean(0) ** 2 * 1e-4 * len(rows) / weight) / weight
    np.testing.assert_allclose(observation, (seen[-1] - mean) / np.sqrt(spread + 1e-8), atol=2e-3)
    assert np.isfinite(reward).all()
    env.close()
    raw.close()


def test_episode_statistics_count_every_episode() -> None:
    env = wrappers.RecordEpisodeStatistics(gymnasium.make_vec(STATE_ID, num_envs=3, max_episode_steps=4))
    env.reset(seed=0)
    for _ in range(10):  # two episodes of four steps and a step between them
        env.step(np.zeros((3, 7), np.float32))
    assert list(env.length_queue) == [4] * 6
    env.close()


def test_infos_become_a_list_of_dictionaries() -> None:
    env = wrappers.DictInfoToList(gymnasium.make_vec(STATE_ID, num_envs=2))
    env.reset(seed=0)
    *_, infos = env.step(still())
    assert [info["is_success"] for info in infos] == [False, False]
    env.close()


@pytest.mark.parametrize("wrapper", [wrappers.ClipReward, wrappers.TransformReward, wrappers.ClipAction])
def test_further_wrappers(wrapper: Any) -> None:
    more = {"ClipReward": (0.0, 0.5), "TransformReward": (lambda reward: reward + 1,)}.get(wrapper.__name__, ())
    env = wrapper(gymnasium.make_vec(STATE_ID, num_envs=2), *more)
    env.reset(seed=0)
    _, reward, *_ = env.step(still())
    assert reward.tolist() == ([1.0, 1.0] if wrapper is wrappers.TransformReward else [0.0, 0.0])
    env.close()


def test_resize() -> None:
    options = {"num_envs": 2, "observe": "image", "max_episode_steps": 3, "engine_options": {"render_processes": 1}}
    env = gymnasium.make_vec(ID, **options)
    frames = env.reset(seed=0)[0]["image"]
    assert len(env.render()) == 2
    assert all(np.array_equal(a, b) for a, b in zip(env.render(), frames, strict=True))
    assert np.array_equal(env.call("render")[1], frames[1])
    small = wrappers.VectorizeTransformObservation(
        env,
        gymnasium.wrappers.TransformObservation,
        func=lambda seen: seen["image"][::4, ::4],
        observation_space=gymnasium.spaces.Box(0, 255, (120, 160, 3), np.uint8),
    )
    resized = wrappers.ResizeObservation(small, (60, 80))
    assert resized.reset(seed=0)[0].shape == (2, 60, 80, 3)
    env.close()


def test_record_video(tmp_path: Path) -> None:
    pytest.importorskip("moviepy")
    options = {"num_envs": 2, "observe": "image", "max_episode_steps": 3, "engine_options": {"render_processes": 1}}
    env = gymnasium.make_vec(ID, **options)
    film = wrappers.RecordVideo(env, str(tmp_path), video_length=3, disable_logger=True)
    film.reset(seed=0)
    for _ in range(4):
        film.step(still())
    film.close()
    # Both the episode of three steps and the one that follows it are among those that the wrapper films by default.
    assert sorted(file.stem for file in tmp_path.glob("*.mp4")) == ["rl-video-episode-0", "rl-video-episode-1"]
