"""Images of the robot's other cameras, through every door of the environment."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.engines import make_engine
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.kinematics import KinematicTree
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.wrappers.observation import ResizeImage

ONE_PROCESS = {"render_processes": 1, "threads": 1}
REST = np.array([0, 0, 0, 0, 0, 0, 1.0])


def pixel_of(task: str, state: dict[str, Any], point: NDArray[Any]) -> NDArray[np.float64]:
    """Column and row of a world point in the wrist camera: kinematics and a pinhole, no simulator."""
    setup = get_setup(get_task(task).robot_setup)
    camera = setup.cameras["wrist"]
    rotation, position = KinematicTree(setup.robot).link_poses(state["qpos"][None], [camera.link])[camera.link]
    link = transforms.compose(np.array(setup.base_pose), transforms.make_pose(position, rotation)[0])
    world = transforms.compose(link, np.array(camera.pose))
    forward, left, up = rotations.matrix_from_quaternion(world[3:]).T @ (point - world[:3])
    return np.array([camera.cx - camera.focal * left / forward, camera.cy - camera.focal * up / forward])


def is_green(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (green > 60) & (red < 0.7 * green) & (blue < 0.8 * green)


def is_red(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    red, green, blue = np.moveaxis(picture.astype(int), -1, 0)
    return (red > 120) & (green < 0.3 * red) & (blue < 0.4 * red)


@pytest.mark.parametrize(
    ("task", "model", "turn", "coloured", "bound"),
    [
        ("widowx_stack_cube", "baked_green_cube_3cm", 0.1, is_green, 5),
        ("google_robot_pick_coke_can", "opened_coke_can", 0.15, is_red, 20),
    ],
)
def test_the_wrist_camera_shows_things_where_a_pinhole_on_the_gripper_would(
    task: str, model: str, turn: float, coloured: Any, bound: float
) -> None:
    """Before and after the gripper has turned, the object is seen where the kinematics of the arm put it."""
    env = SceneVectorEnv(task, 1, observe="wrist_image", engine_options=ONE_PROCESS, autoreset_mode="Disabled")
    observation, _ = env.reset(options={"layout": 3})
    places = []
    for _ in range(2):
        picture = observation["wrist_image"][0]
        rows, columns = np.nonzero(coloured(picture))
        assert len(rows) > 200
        state = env.lanes[0].state()
        expected = pixel_of(task, state, state[f"object/{model}"][:3])
        seen = np.array([np.median(columns), np.median(rows)])
        assert np.linalg.norm(seen - expected) < bound, (seen, expected)
        places.append(seen)
        observation, *_ = env.step_chunk(np.tile([0, 0, 0, 0, 0, turn, "widowx" in task], (1, 3, 1)))
    assert np.linalg.norm(places[1] - places[0]) > 15, "the camera turns with the gripper"
    env.close()


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[int]]]:
    """Camera and environments of every call of the engine for images, which are numbered instead of rendered."""
    from vlaser_gym.envs.engines.mujoco.engine import MujocoEngine

    made: list[tuple[str, list[int]]] = []

    def images(self: Any, lanes: Any, camera: str = "policy") -> NDArray[np.uint8]:
        made.append((camera, list(lanes)))
        return np.full((len(lanes), 480, 640, 3), len(made), np.uint8)

    monkeypatch.setattr(MujocoEngine, "images", images)
    return made


def test_only_cameras_that_are_read_are_rendered_and_only_where_something_moved(
    asked: list[tuple[str, list[int]]],
) -> None:
    env = SceneVectorEnv("widowx_stack_cube", 2, observe=("proprio", "wrist_image"), autoreset_mode="Disabled")
    assert set(env.single_observation_space.spaces) == {"proprio", "wrist_image"}
    env.reset(options={"layout": 0})
    env.step_chunk(np.broadcast_to(REST, (2, 3, 7)))
    assert asked == [("wrist", [0, 1])] * 2
    env.reset(options={"layout": 1, "reset_mask": [False, True]})
    assert asked[2:] == [("wrist", [1])]
    env.render()  # the policy's camera, from which nothing has been seen yet
    assert asked[3:] == [("policy", [0, 1])]
    env.reset(options={"layout": 1, "reset_mask": [False, False]})
    env.render()
    assert len(asked) == 4
    env.close()


def test_both_pictures_are_the_lanes_own_across_an_automatic_reset(asked: list[tuple[str, list[int]]]) -> None:
    """The last image of an episode and the first of the next, of both cameras; the other environment keeps its own."""
    env = SceneVectorEnv("widowx_stack_cube", 2, observe=("image", "wrist_image"))
    env.reset(seed=0)
    env.lanes[1].elapsed = env.lanes[1].task.max_steps - 1
    observation, _, _, truncated, info = env.step_chunk(np.broadcast_to(REST, (2, 1, 7)))
    assert truncated.tolist() == [False, True]
    assert asked == [("policy", [0, 1]), ("wrist", [0, 1])] * 2 + [("policy", [1]), ("wrist", [1])]
    values = {name: observation[name][:, 0, 0, 0].tolist() for name in ("image", "wrist_image")}
    assert values == {"image": [3, 5], "wrist_image": [4, 6]}
    final = info["final_obs"][1]
    assert (final["image"].max(), final["wrist_image"].max()) == (3, 4)
    env.close()


def test_gymnasium_makes_it_and_wrappers_resize_it(asked: list[tuple[str, list[int]]]) -> None:
    env = gymnasium.make_vec("vlaser_gym/widowx_stack_cube", num_envs=2, observe=("wrist_image", "image"))
    observation, _ = env.reset(seed=0)
    assert observation["wrist_image"].shape == env.observation_space["wrist_image"].shape == (2, 480, 640, 3)
    small = ResizeImage(env, (24, 32), channels_first=True)
    observation, _ = small.reset(seed=0)
    assert {name: values.shape for name, values in observation.items()} == dict.fromkeys(
        ("wrist_image", "image"), (2, 3, 24, 32)
    )
    env.close()


def test_cameras_that_are_none_and_engines_with_one_camera() -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown observation 'wirst_image'.*nearest: wrist_image"):
        SceneVectorEnv("widowx_stack_cube", observe="wirst_image")
    for engine in ("simpler", "maniskill"):
        with pytest.raises(
            InvalidConfigError, match=f"engine={engine} makes images of the policy's camera only; got"
        ) as error:
            make_engine(engine, 1, cameras=["policy", "wrist"])
        assert "\n" not in str(error.value)


def test_snapshots_outdate_the_pictures_of_all_cameras(asked: list[tuple[str, list[int]]]) -> None:
    env = SceneVectorEnv(
        "widowx_stack_cube", 1, observe=("image", "wrist_image"), autoreset_mode=AutoresetMode.DISABLED
    )
    env.reset(options={"layout": 0})
    state = env.get_state()
    env.set_state(state)
    env.step_chunk(REST[None, None])
    assert asked[2:] == [("policy", [0]), ("wrist", [0])]
    env.close()
