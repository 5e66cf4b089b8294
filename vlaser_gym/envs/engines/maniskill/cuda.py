"""PhysX on an NVIDIA GPU, as a :class:`.batch.System`: all sub-scenes in one, read and written as whole arrays.

The order of calls is that of ManiSkill 3.0.1 (``envs/scene.py``: ``_setup``, ``_gpu_apply_all``, ``_gpu_fetch_all``).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import sapien
from mani_skill.envs.scene import ManiSkillScene
from mani_skill.envs.utils.system.backend import BackendInfo
from mani_skill.utils.common import to_tensor
from mani_skill.utils.structs.types import GPUMemoryConfig
from sapien import physx

from vlaser_gym.envs.engines.maniskill.batch import Arrays, Floats
from vlaser_gym.envs.engines.maniskill.scene import set_solver
from vlaser_gym.errors import InvalidConfigError

#: Distance between the origins of neighbouring sub-scenes, m: none reaches into another.
_SPACING = 10.0
#: Sub-scenes in a row.
_ROW = 16


class CudaSystem:
    """One PhysX system on the GPU.

    Args:
        substep: seconds.

    Raises:
        InvalidConfigError: without an NVIDIA GPU, a PyTorch that sees it, or PhysX's library for it.
    """

    def __init__(self, substep: float) -> None:
        enable()
        set_solver()
        self._px: Any = physx.PhysxGpuSystem(sapien.Device("cuda"))
        self._px.timestep = substep
        self._scenes: list[ManiSkillScene] = []
        self._query: Any = None

    def add_scene(self) -> ManiSkillScene:
        """An empty sub-scene; before :meth:`begin` only."""
        row, column = divmod(len(self._scenes), _ROW)
        scene = sapien.Scene([self._px])
        self._px.set_scene_offset(scene, [column * _SPACING, row * _SPACING, 0.0])
        backend = BackendInfo("cpu", self._px.device, "physx_cuda", None, "none")
        self._scenes.append(ManiSkillScene([scene], device="cpu", backend=backend))
        return self._scenes[-1]

    def begin(self, pairs: Sequence[tuple[Any, Any]]) -> Arrays:
        """Close the system to further bodies; ``pairs`` of bodies are those whose contact will be asked for."""
        self._px.gpu_init()
        self._query = self._px.gpu_create_contact_pair_impulse_query(list(pairs)) if pairs else None
        for array in (self._px.cuda_articulation_qf, self._px.cuda_articulation_target_qvel):
            array.torch().zero_()
        self._px.gpu_apply_articulation_qf()
        target, speed = self._px.cuda_articulation_target_qpos, self._px.cuda_articulation_target_qvel
        empty = np.zeros((0, 0), np.float32)
        return self.fetch(Arrays(empty, empty, empty, _numpy(target), _numpy(speed)))

    def body_row(self, body: Any) -> int:
        """Row of a rigid body in :attr:`Arrays.bodies`."""
        return int(body.gpu_pose_index)

    def articulation_row(self, articulation: Any) -> int:
        """Row of an articulation in :attr:`Arrays.qpos`."""
        return int(articulation.gpu_index)

    def apply(self, arrays: Arrays) -> None:
        """Put everything into a state."""
        px = self._px
        _write(px.cuda_rigid_body_data, arrays.bodies)
        _write(px.cuda_articulation_qpos, arrays.qpos)
        _write(px.cuda_articulation_qvel, arrays.qvel)
        px.gpu_apply_rigid_dynamic_data()
        px.gpu_apply_articulation_qpos()
        px.gpu_apply_articulation_qvel()
        px.gpu_apply_articulation_root_pose()
        px.gpu_apply_articulation_root_velocity()
        self.drive(arrays)
        px.gpu_update_articulation_kinematics()

    def drive(self, arrays: Arrays) -> None:
        """Send the drive targets."""
        _write(self._px.cuda_articulation_target_qpos, arrays.target)
        _write(self._px.cuda_articulation_target_qvel, arrays.target_speed)
        self._px.gpu_apply_articulation_target_position()
        self._px.gpu_apply_articulation_target_velocity()

    def step(self) -> None:
        """Advance the physics by one substep."""
        self._px.step()

    def fetch(self, arrays: Arrays) -> Arrays:
        """The state now, with the drive targets of ``arrays``."""
        px = self._px
        px.gpu_fetch_rigid_dynamic_data()
        px.gpu_fetch_articulation_link_pose()
        px.gpu_fetch_articulation_link_velocity()
        px.gpu_fetch_articulation_qpos()
        px.gpu_fetch_articulation_qvel()
        return arrays._replace(
            bodies=_numpy(px.cuda_rigid_body_data),
            qpos=_numpy(px.cuda_articulation_qpos),
            qvel=_numpy(px.cuda_articulation_qvel),
        )

    def impulses(self) -> Floats:
        """``[P, 3]``: impulse (N s) of the last substep on the first body of each pair by the second."""
        if self._query is None:
            return np.zeros((0, 3), np.float32)
        self._px.gpu_query_contact_pair_impulses(self._query)
        return _numpy(self._query.cuda_impulses)


def enable() -> None:
    """Make PhysX's GPU library ready in this process; SAPIEN downloads it the first time.

    Raises:
        InvalidConfigError: see :class:`CudaSystem`.
    """
    if physx.is_gpu_enabled():
        return
    try:
        to_tensor(np.zeros(1, np.float32), device="cuda")
    except (AssertionError, RuntimeError) as error:
        raise InvalidConfigError(
            f"engine.sim_backend=gpu needs an NVIDIA GPU and a PyTorch that sees it ({error}): install that, or "
            "use engine.sim_backend=cpu."
        ) from error
    try:
        physx.enable_gpu()
    except Exception as error:
        raise InvalidConfigError(
            f"engine.sim_backend=gpu needs PhysX's GPU library, which SAPIEN downloads on first use ({error}): put the "
            f"library into ~/.sapien/physx/{physx.version()}, or use engine.sim_backend=cpu."
        ) from error
    physx.set_gpu_memory_config(**GPUMemoryConfig().dict())


def _numpy(array: Any) -> Floats:
    return np.asarray(array.torch().cpu().numpy(), np.float32).copy()


def _write(array: Any, values: Floats) -> None:
    array.torch().copy_(to_tensor(values, device="cpu"))
