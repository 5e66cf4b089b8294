"""The process in which ManiSkill's own bridge environments run: makes their files' folder, resets and steps them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import trimesh
from mani_skill import ASSET_DIR
from mani_skill.utils.common import to_tensor
from mani_skill.utils.registration import REGISTERED_ENVS
from numpy.typing import NDArray

from vlaser_gym.envs.bridge import Begin, Course, Floats, link_files
from vlaser_gym.envs.engines.child import serve
from vlaser_gym.envs.engines.maniskill.scene import STAGE_ROTATION, STAGES, THICKNESS, Stage
from vlaser_gym.envs.engines.maniskill.vulkan import render_system
from vlaser_gym.envs.robots import get_setup

#: Without these two, fingers rest against the bar that carries them and do not close at all.
_NO_COLLISIONS = "".join(
    f'<disable_collisions link1="{bar}" link2="{finger}" reason="Default"/>'
    for bar, finger in get_setup("widowx").robot.collision_exclusions
)


class _Worker:
    def __init__(self) -> None:
        self._envs: dict[str, Any] = {}
        #: Positions and quaternions of all episodes, as the environment brings them.
        self._episodes: dict[str, tuple[Any, Any]] = {}

    def answer(self, command: str, *arguments: Any) -> Any:
        """``open`` makes files that the environments lack; ``play`` runs actions ``[T, 7]``: a :class:`Course`."""
        handlers: dict[str, Callable[..., Any]] = {"open": prepare_files, "play": self._play}
        return handlers[command](*arguments)

    def _play(self, name: str, begin: Begin, actions: NDArray[np.float32]) -> Course:
        env = self._env(name)
        self._reset(name, env, begin)
        rows, success = [_row(env)], []
        for action in actions:
            *_, info = env.step(action)
            rows.append(_row(env))
            success.append(bool(info["success"]))
        qpos, tcp, poses = (np.array(column, np.float64) for column in zip(*rows, strict=True))
        objects = {obj: poses[:, i] for i, obj in enumerate(env.objs)}
        return Course(qpos, tcp, objects, _numbers(env.agent.robot.pose), np.array(success, bool))

    def _env(self, name: str) -> Any:
        if name not in self._envs:
            # The class admits images only; what is measured needs none.
            REGISTERED_ENVS[name].cls.SUPPORTED_OBS_MODES = ["none"]
            renderer = "gpu" if render_system().device.is_cuda() else "cpu"
            made = gymnasium.make(name, obs_mode="none", sim_backend="physx_cpu", render_backend=renderer)
            env: Any = made.unwrapped
            self._envs[name], self._episodes[name] = env, (env.xyz_configs, env.quat_configs)
        return self._envs[name]

    def _reset(self, name: str, env: Any, begin: Begin) -> None:
        """Reset as the environment does; given poses take the place of its list, and are not left to settle."""
        (env.xyz_configs, env.quat_configs), env._settle = self._episodes[name], type(env)._settle.__get__(env)
        if begin.object_pose is not None:
            poses = to_tensor(np.array([begin.object_pose[obj] for obj in env.obj_names], np.float32))
            env.xyz_configs, env.quat_configs = poses[None, :, :3], poses[None, :, 3:]
            env._settle = lambda *_: None  # in the place of the simulation steps in which objects settle
        env.reset(seed=0, options={"episode_id": to_tensor(np.array([begin.episode])), "reconfigure": True})


def prepare_files(pack: Path) -> None:
    """The folder that ManiSkill expects: links, and what the pack lacks.

    Stage meshes are boxes as high as in the recordings. The robot has the description of the original, whose collisions
    between fingers and bar have to be switched off by a file beside it.
    """
    link_files(pack, ASSET_DIR)
    (ASSET_DIR / "robots/widowx/wx250s.srdf").write_text(f'<robot name="wx250s">{_NO_COLLISIONS}</robot>')
    stages = ASSET_DIR / "tasks/bridge_v2_real2sim_dataset/stages"
    stages.mkdir()
    for scenery in ("bridge_table", "bridge_sink"):
        _table(STAGES[scenery]).export(stages / f"{STAGES[scenery].name}.glb")


def _table(stage: Stage) -> trimesh.Trimesh:
    """The box that stands in for a stage mesh, in that mesh's own frame."""
    low_x, high_x, low_y, high_y = stage.area
    box = trimesh.creation.box(bounds=[(low_x, low_y, stage.top - THICKNESS), (high_x, high_y, stage.top)])
    box.apply_translation([-value for value in stage.position])
    return box.apply_transform(np.linalg.inv(trimesh.transformations.quaternion_matrix(STAGE_ROTATION)))


def _row(env: Any) -> tuple[Floats, Floats, list[Floats]]:
    robot = env.agent.robot
    joints = [joint.name for joint in robot.active_joints]
    columns = [joints.index(joint.name) for joint in get_setup("widowx").robot.moving_joints]
    tcp = robot.pose.inv() * robot.links_map["ee_gripper_link"].pose
    return robot.qpos[0].numpy()[columns], _numbers(tcp), [_numbers(actor.pose) for actor in env.objs.values()]


def _numbers(pose: Any) -> Floats:
    return np.asarray(pose.raw_pose[0].numpy(), np.float64)


if __name__ == "__main__":
    serve(_Worker().answer)
