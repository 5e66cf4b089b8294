"""Measures of how closely an engine reproduces recordings of the original simulator.

Recordings are folders ``reset/<task>``, ``replay_free/<robot>`` and ``replay_task/<task>``, each with an ``index.json``
and one ``.npz`` per episode: what SimplerEnv (SAPIEN 2.2.2) did, as arrays. A task without resets may have a file
``settled_poses_<task>.json`` (the task's name without ``robot_``) with where its object lies in each grid layout.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.envs import transforms
from vlaser_gym.envs.engines import Placement, lanes_that_fit
from vlaser_gym.envs.robots import Camera, get_setup
from vlaser_gym.envs.robots.kinematics import kinematic_tree
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import Layout, Task
from vlaser_gym.envs.tasks.cabinet import drawer_pose, joint_name
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import MissingAssetError

Floats = NDArray[np.float64]
T = TypeVar("T")
#: Key, metadata and arrays of a recorded episode.
Episode = tuple[str, dict[str, Any], Mapping[str, NDArray[Any]]]

#: What is compared of an initial state: lengths in mm, angles in degrees, pixels.
INITIAL = ("object_mm", "object_deg", "tcp_mm", "tcp_deg", "projection_px")
#: Where objects are while the robot moves in free space: out of reach of everything.
_AWAY = np.array([3.0, 0.0, 0.0])
#: Recorded and our initial states this close (m) are meant to be the same.
_SAME_PLACE = 0.005


@dataclass(frozen=True)
class Response:
    """A reference motion: actions from the start pose, and the TCP displacement (m, base frame) after each step."""

    robot: str
    task: str
    actions: Floats
    axes: tuple[int, ...]
    expected: Floats


def _response(robot: str, task: str, forward: float, gripper: float, x: list[float], z: list[float]) -> Response:
    """The motion of three steps of ``forward`` (m) along x, then of none; ``x`` and ``z`` in mm."""
    actions = np.zeros((len(x), 7))
    actions[:3, 0], actions[:, 6] = forward, gripper
    return Response(robot, task, actions, (0, 2), np.array([x, z]).T / 1000)


#: Measured on the original: 20 mm (WidowX) or 30 mm (Google Robot) along x three times, then nothing.
RESPONSES = (
    _response(
        "widowx",
        "widowx_stack_cube",
        forward=0.020,
        gripper=-1.0,
        x=[12.6, 29.9, 48.9, 55.9, 58.5, 59.4, 59.8, 59.9],
        z=[2.4, 4.7, 6.4, 4.3, 2.4, 1.3, 0.6, 0.3],
    ),
    _response(
        "google_robot",
        "google_robot_pick_coke_can",
        forward=0.030,
        gripper=0.0,
        x=[5.4, 17.3, 28.0, 31.8, 31.4],
        z=[-0.8, -2.5, -4.0, -4.3, -4.2],
    ),
)


class Recordings:
    """A folder of recordings.

    Raises:
        MissingAssetError: if there are none.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        if not (self.folder / "reset").is_dir():
            raise MissingAssetError(
                f"Expected recordings of the original simulator (reset/, replay_free/, replay_task/) in {folder}; "
                "found none: give their folder with golden=PATH."
            )

    def episodes(self, kind: str, name: str) -> Iterator[Episode]:
        """``(key, metadata, arrays)`` of each episode of ``reset``, ``replay_free`` or ``replay_task``."""
        own = self.folder / kind / name
        # Tasks that differ in one word have folders <family>.<word>; their episodes name the task.
        for folder in [own] if own.is_dir() else sorted((self.folder / kind).glob("*.*")):
            index = json.loads((folder / "index.json").read_text())
            for key in sorted(index):
                if folder == own or index[key].get("simpler_task") == name:
                    yield key, index[key], np.load(folder / f"{key}.npz")

    def settled(self, name: str) -> dict[int, Floats]:
        """Grid layout -> pose ``[7]`` of the task's object at the start; empty where none was recorded."""
        file = self.folder / f"settled_poses_{name.replace('robot_', '')}.json"
        if not file.is_file():
            return {}
        layouts = json.loads(file.read_text())["layouts"]
        return {int(index): np.array(layout["pose"], np.float64) for index, layout in layouts.items()}


@dataclass(frozen=True)
class Simulator:
    """The simulator under test: engine, look (None: the engine's own), options, and number of environments."""

    engine: str
    look: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    lanes: int = 8

    @contextmanager
    def opened(self, task: str, lanes: int = 1) -> Iterator[SceneVectorEnv]:
        """An environment in which ``task`` runs."""
        env = SceneVectorEnv(
            task,
            lanes,
            engine=self.engine,
            look=self.look,
            observe=("proprio",),
            autoreset_mode=AutoresetMode.DISABLED,
            engine_options=self.options,
        )
        try:
            yield env
        finally:
            env.close()

    def batches(self, task: str, episodes: Sequence[T]) -> Iterator[tuple[SceneVectorEnv, Sequence[T]]]:
        """Episodes in groups of at most :attr:`lanes`, each group with a vector environment of its
        size.
        """
        fitting = lanes_that_fit(self.engine, self.lanes, pictures=False)
        for start in range(0, len(episodes), fitting):
            batch = episodes[start : start + fitting]
            with self.opened(task, len(batch)) as env:
                yield env, batch


def task_figures(recordings: Recordings, task_name: str, simulator: Simulator) -> dict[str, Any]:
    """Initial poses, projections and task replays of one task; lengths in mm, angles in degrees, pixels.

    Figures of initial states are ``None`` where none was recorded.
    """
    figures: dict[str, Any] = {"task": task_name}
    figures.update(_initial_figures(recordings, task_name, simulator))
    episodes = list(recordings.episodes("replay_task", task_name))
    outcomes = [
        outcome for env, batch in simulator.batches(task_name, episodes) for outcome in _replay(env, list(batch))
    ]
    return figures | outcome_figures(episodes, outcomes)


def robot_figures(recordings: Recordings, robot: str, simulator: Simulator) -> dict[str, Any]:
    """Reference responses and free-space replays of one robot."""
    response = response_of(robot)
    with simulator.opened(response.task) as env:
        setup = get_setup(get_task(response.task).robot_setup)
        start, path = _free_motion(env, np.array(setup.qpos), response.actions)
        figures: dict[str, Any] = {
            "robot": robot,
            "response_steps": len(response.actions),
            "response_mm": response_error(response, start, path),
            "free": [],
        }
        for key, meta, arrays in recordings.episodes("replay_free", robot):
            _, path = _free_motion(env, arrays["qpos"][0], arrays["action"][: steps_before_failure(arrays)])
            figures["free"].append(motion_figures(key, meta, arrays, path))
    return figures


def response_of(robot: str) -> Response:
    """The reference motion of a robot."""
    return next(response for response in RESPONSES if response.robot == robot)


def response_error(response: Response, start: Floats, path: Floats) -> float:
    """Largest departure (mm) of TCP poses ``path [T, 7]`` from what a reference motion should be; ``start [7]``."""
    moved = (path[:, :3] - start[:3])[:, response.axes]
    return _mm(np.abs(moved - response.expected).max())


def motion_figures(
    key: str, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], path: Floats
) -> dict[str, Any]:
    """The deviation of TCP poses ``[T, 7]`` (base frame, after each action) from a recorded free motion."""
    distance, angle = pose_errors(path, arrays["tcp_base"][1 : len(path) + 1])
    return {
        "sequence": key,
        "steps": len(path),
        "of": int(meta["steps"]),
        "rms_mm": _mm(np.sqrt((distance**2).mean())),
        "max_mm": _mm(distance.max()),
        "rms_deg": float(np.degrees(np.sqrt((angle**2).mean()))),
        "max_deg": float(np.degrees(angle.max())),
    }


def _initial_figures(recordings: Recordings, task_name: str, simulator: Simulator) -> dict[str, float | None]:
    task = get_task(task_name)
    found = [(episode, _layout_of(task, episode[1], episode[2])) for episode in recordings.episodes("reset", task_name)]
    episodes = [(episode, layout) for episode, layout in found if layout is not None]
    if not episodes:
        return _settled_figures(recordings.settled(task_name), task_name, simulator)
    errors = []
    for env, batch in simulator.batches(task_name, episodes):
        indices = [_grid_index(task, meta, arrays) for (_, meta, arrays), _ in batch]
        env.reset(options={"layout": [index or 0 for index in indices]})
        for lane, (index, (_, layout)) in enumerate(zip(indices, batch, strict=True)):
            if index is None:
                _start(env, lane, layout, np.array(layout.qpos or get_setup(task.robot_setup).qpos))
        states, bases = [lane.state() for lane in env.lanes], [lane.base_pose for lane in env.lanes]
        errors += [
            initial_errors(task, meta, arrays, state, base)
            for ((_, meta, arrays), _), state, base in zip(batch, states, bases, strict=True)
        ]
    return dict(zip(INITIAL, np.max(errors, 0).tolist(), strict=True))


def _settled_figures(settled: Mapping[int, Floats], task_name: str, simulator: Simulator) -> dict[str, float | None]:
    """The deviation of the objects' initial poses from recorded ones, for recordings without motion."""
    figures: dict[str, float | None] = dict.fromkeys(INITIAL)
    if not settled:
        return figures
    poses = []
    with simulator.opened(task_name) as env:
        for index in settled:
            env.reset(options={"layout": index})
            poses.append(env.lanes[0].state()[f"object/{env.lanes[0].source_name}"])
    distance, angle = pose_errors(np.array(poses), np.array(list(settled.values())))
    return figures | {"object_mm": _mm(distance.max()), "object_deg": float(np.degrees(angle.max()))}


def _start(env: SceneVectorEnv, lane: int, layout: Layout, qpos: Floats) -> None:
    placement = Placement(env.tasks[0], "default", layout, qpos)
    env.start(np.array([lane]), [env.addresses[lane]], [placement])


def _layout_of(task: Task, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Layout | None:
    """The layout that was recorded; None where the original drew a state that no layout of ours describes.

    An object that was dropped off the grid, before a robot pose of the grid, is let down at the recorded place: what
    is left to compare are its height and how it is turned.
    """
    index = _grid_index(task, meta, arrays)
    if index is not None:
        return task.layout(f"grid:{index}")
    layout = _with_robot_of(task, meta)
    if layout.base_pose is None:
        return None
    pose = layout.object_pose.copy()
    pose[:, :2] = arrays["obj_pose"].reshape(-1, len(pose), 7)[0, :, :2]
    return replace(layout, object_pose=pose)


def _with_robot_of(task: Task, meta: Mapping[str, Any]) -> Layout:
    """The first layout whose robot stands where the recorded one does; the first of all where none does."""
    layouts = (task.layout(f"grid:{index}") for index in range(task.num_layouts))
    found = (layout for layout in layouts if _base_offset(task, layout, meta) < _SAME_PLACE)
    return next(found, task.layout("grid:0"))


def _base_offset(task: Task, layout: Layout, meta: Mapping[str, Any]) -> float:
    """The distance (m) between the robot's base in a layout and in a recording."""
    base = layout.base_pose or get_setup(task.robot_setup).base_pose
    return float(np.linalg.norm(np.array(base[:2]) - meta["robot_init_options"]["init_xy"]))


def _grid_index(task: Task, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> int | None:
    """The index of the recorded grid layout; None if the original drew a state off the grid.

    Recordings without an episode number are recognised by the robot's base and the object's place.
    """
    number = meta["reset_options"].get("obj_init_options", {}).get("episode_id")
    if number is not None:
        return int(number)
    for index in range(task.num_layouts):
        layout = task.layout(f"grid:{index}")
        offset = _base_offset(task, layout, meta)
        if len(layout.object_pose):
            recorded = arrays["obj_pose"].reshape(-1, len(layout.object_pose), 7)[0, 0]
            offset = max(offset, float(np.linalg.norm(layout.object_pose[0, :2] - recorded[:2])))
        if offset < _SAME_PLACE:
            return index
    return None


def initial_errors(
    task: Task, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Floats], base: Floats
) -> tuple[float, ...]:
    """The figures :data:`INITIAL` of a state, named as :meth:`Lane.state` names it; ``base [7]``: the robot's root."""
    setup = get_setup(task.robot_setup)
    tree = kinematic_tree(setup.robot)
    ours, theirs = _things(meta, arrays, state)
    distance, angle = pose_errors(ours, theirs)
    poses = tree.link_poses(state["qpos"][None], [setup.robot.tcp_link, setup.camera.link])
    tcp, mount = (transforms.compose(base, transforms.make_pose(p, R))[0] for R, p in poses.values())
    tcp_distance, tcp_angle = pose_errors(tcp[None], arrays["tcp_world"][None])
    pixels = project(setup.camera, mount, ours[:, :3]) - project_matrix(
        arrays["cam_intrinsic"], arrays["cam_extrinsic_cv"], theirs[:, :3]
    )
    return (
        _mm(distance.max()),
        float(np.degrees(angle.max())),
        _mm(tcp_distance[0]),
        float(np.degrees(tcp_angle[0])),
        float(np.linalg.norm(pixels, axis=1).max()),
    )


def _things(
    meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], state: Mapping[str, Floats]
) -> tuple[Floats, Floats]:
    """Poses ``[n, 7]`` of objects and drawers as here and as recorded."""
    names = [name for name in meta["object_names"] if f"object/{name}" in state]
    ours = [state[f"object/{name}"] for name in names]
    theirs = [arrays["obj_pose"].reshape(-1, 7)[meta["object_names"].index(name)] for name in names]
    drawers = [name.removeprefix("joint/") for name in state if name.startswith("joint/")]
    for joint in drawers:
        ours.append(np.array(drawer_pose(joint.removesuffix(joint_name("")), float(state[f"joint/{joint}"]))))
        link = meta["cabinet_link_names"].index(joint.removesuffix("_joint"))
        theirs.append(arrays["cabinet_link_pose_world"][link])
    return np.array(ours), np.array(theirs, np.float64)


def project(camera: Camera, mount: Floats, points: Floats) -> Floats:
    """Pixels ``[n, 2]`` of world points ``[n, 3]`` in a robot camera whose link stands at ``mount [7]``."""
    world = transforms.compose(mount, np.array(camera.pose))
    local = (points - world[:3]) @ rotations.matrix_from_quaternion(world[3:])
    # SAPIEN: x forward, y left, z up.
    forward, right, down = local[:, 0], -local[:, 1], -local[:, 2]
    focal = camera.focal / forward
    return np.stack([focal * right + camera.cx, focal * down + camera.cy], -1)


def project_matrix(intrinsic: NDArray[Any], extrinsic: NDArray[Any], points: Floats) -> Floats:
    """The same from OpenCV matrices: intrinsic ``[3, 3]``, world-to-camera ``[4, 4]``."""
    local = points @ extrinsic[:3, :3].T.astype(np.float64) + extrinsic[:3, 3]
    pixels = local @ intrinsic.T.astype(np.float64)
    return np.asarray(pixels[:, :2] / pixels[:, 2:])


def outcome_figures(episodes: Sequence[Episode], outcomes: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The agreement of replayed and recorded outcomes; ``ours`` is success at the last step."""
    rows = [
        {"episode": key, "original": bool(arrays["flag_success"][-1]), **outcome}
        for (key, _, arrays), outcome in zip(episodes, outcomes, strict=True)
    ]
    succeeded = [row for row in rows if row["original"]]
    others = [row for row in rows if not row["original"]]
    return {
        "recalled": sum(row["ours"] for row in succeeded),
        "successes": len(succeeded),
        "false_successes": sum(row["ours"] for row in others),
        "failures": len(others),
        "replays": rows,
    }


def _replay(env: SceneVectorEnv, episodes: list[Episode]) -> list[dict[str, Any]]:
    _reset_recorded(env, episodes)
    sources = [lane.source_name for lane in env.lanes]
    lengths = np.array([len(arrays["action"]) for _, _, arrays in episodes])
    success = np.zeros(len(episodes), bool)
    deviation = np.zeros(len(episodes))
    for step in range(lengths.max()):
        running = step < lengths
        actions = [a["action"][step] if on else np.zeros(7) for (_, _, a), on in zip(episodes, running, strict=True)]
        *_, info = env.step(np.array(actions))
        success = np.where(running, info["success"], success)
        for lane in np.flatnonzero(running):
            _, meta, arrays = episodes[lane]
            offset = _departure(sources[lane], info["states"][lane], meta, arrays, step + 1)
            deviation[lane] = max(deviation[lane], offset)
    return [{"ours": bool(s), "source_max_mm": _mm(d)} for s, d in zip(success, deviation, strict=True)]


def _departure(
    source: str,
    states: Mapping[str, NDArray[Any]],
    meta: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    row: int,
) -> float:
    """The deviation (m) of the manipulated object or drawer from its recorded position."""
    if f"joint/{source}" in states:
        recorded = arrays["drawer_qpos"][row, meta["drawer_joint_names"].index(source)]
        return float(abs(states[f"joint/{source}"][0] - recorded))
    place = meta["object_names"].index(source)
    return float(np.linalg.norm(states[f"object/{source}"][0, :3] - arrays["obj_pose"][row, place, :3]))


def _reset_recorded(env: SceneVectorEnv, episodes: list[Episode]) -> None:
    """Start at the recorded layouts; where the original drew a state of its own, at that state."""
    task, env.record_states = env.tasks[0], True
    indices = [_grid_index(task, meta, arrays) for _, meta, arrays in episodes]
    env.reset(options={"layout": [index or 0 for index in indices]})
    for lane, (index, (_, meta, arrays)) in enumerate(zip(indices, episodes, strict=True)):
        if index is None:
            layout = replace(_with_robot_of(task, meta), object_pose=arrays["obj_pose"][0].astype(np.float64))
            _start(env, lane, layout, arrays["qpos"][0].astype(np.float64))


def _free_motion(env: SceneVectorEnv, qpos: NDArray[Any], actions: NDArray[Any]) -> tuple[Floats, Floats]:
    """TCP pose ``[7]`` at the start and after each action ``[T, 7]``, base frame, with all objects out of reach."""
    task, lane = env.tasks[0], np.zeros(1, np.int64)
    layout = task.layout("grid:0")
    poses = layout.object_pose.copy()
    poses[:, :3] += _AWAY * np.arange(1, len(poses) + 1)[:, None]
    start = qpos.astype(np.float64)
    env.engine.place([0], [Placement(task, "default", replace(layout, object_pose=poses), start)])
    env.controller.reset(lane, start[None])
    path = [start]
    for action in actions.astype(np.float64):
        env.drive(lane, action[None], env.engine.read(lane))
        path.append(env.engine.read(lane)[0].qpos)
    robot = get_setup(task.robot_setup).robot
    rotation, position = kinematic_tree(robot).link_poses(np.array(path), [robot.tcp_link])[robot.tcp_link]
    poses = transforms.make_pose(position, rotation)
    return poses[0], poses[1:]


def steps_before_failure(arrays: Mapping[str, NDArray[Any]]) -> int:
    """Steps of a free motion that are compared: once the inverse kinematics fails, two simulators need not agree."""
    if "ik_success" not in arrays or arrays["ik_success"].all():
        return len(arrays["action"])
    return int(np.argmin(arrays["ik_success"]))


def pose_errors(a: Floats, b: NDArray[Any]) -> tuple[Floats, Floats]:
    """Distances (m) and angles (rad) between poses ``[n, 7]``."""
    b = b.astype(np.float64)
    return np.linalg.norm(a[:, :3] - b[:, :3], axis=1), rotations.rotation_angle(a[:, 3:], b[:, 3:])


def _mm(length: float) -> float:
    return float(length) * 1000
