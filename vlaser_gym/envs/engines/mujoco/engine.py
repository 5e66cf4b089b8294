"""The built-in engine: MuJoCo, all environments of a scene stepped by one call on all cores."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mujoco
import numpy as np
from mujoco.batch import Batch
from mujoco.batch import SimulationError as BatchError
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import (
    NOMINAL_PHYSICS,
    NOMINAL_SIGHT,
    Floats,
    Ints,
    Placement,
    Reading,
    read_image_size,
)
from vlaser_gym.envs.engines.mujoco.rendering import Job, RenderPool, SceneKey
from vlaser_gym.envs.engines.mujoco.scene import Scene, build_scene, write_qpos
from vlaser_gym.envs.robots import POLICY_CAMERA, DriveTargets
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.base import Layout, Task
from vlaser_gym.errors import SimulationError

#: Number of the scenes' physics, part of the engine's version: runs of another are not continued, and compared with a
#: warning. 2: drives that are held give way as the original's (docs/parity.md); runs of before name MuJoCo alone. 3:
#: objects at rest sleep.
PHYSICS = 3
#: Objects that were slower (m/s; rad/s times their size) for ten physics steps sleep until something touches them, as
#: the original's do below 0.1 m/s (a sleep threshold of 0.005). Contacts of objects at rest took half of the time.
_SLEEP_SPEED = 1e-4
#: Compiled scenes that are kept though no environment may show them.
_MOST_IDLE_SCENES = 32
_NO_FORWARD = int(mujoco.mjtStage.mjSTAGE_NONE)


class MujocoEngine:
    """Environments are grouped by scene; each scene has one batch, in which an environment keeps its own number.

    Args:
        num_lanes: number of simulations.
        look: of the images: ``"builtin"`` (generated shapes and textures) or ``"original"`` (SimplerEnv's meshes,
            textures and photographs, from the asset pack). The physics is the same.
        threads: physics threads; 0 for one per core.
        render_processes: processes that make images; None for one per core, at most four.
        assets: directory of the asset pack, for the look ``"original"``; None for the user's cache.
        image_size: of the images, ``"160x120"``; None for the cameras' own. It is another image than a large one
            that was shrunk: there is no multisampling, so that edges are jagged where shrinking averages.

    Raises:
        MissingAssetError: if the look needs the asset pack and it is not there.
        InvalidConfigError: for a text that is no size.
    """

    name = "mujoco"
    version = f"{mujoco.__version__}, physics {PHYSICS}"

    def __init__(
        self,
        num_lanes: int,
        look: str = "builtin",
        threads: int = 0,
        render_processes: int | None = None,
        assets: str | None = None,
        image_size: str | None = None,
    ) -> None:
        self.look = look
        self.image_size = read_image_size(image_size)
        self._assets = None if look == "builtin" else str(AssetPack(assets).directory)
        self._num_lanes, self._threads = num_lanes, threads
        self._render_processes = render_processes
        self._pools: dict[SceneKey, _Pool] = {}
        self._keys: list[SceneKey | None] = [None] * num_lanes
        self._sights = [NOMINAL_SIGHT] * num_lanes
        self._renderer: RenderPool | None = None

    def place(self, lanes: Sequence[int], placements: Sequence[Placement]) -> None:
        """Put environments into initial states, everything at rest; scenes are compiled when first seen."""
        for lane, placement in zip(lanes, placements, strict=True):
            named = placement.task.name, placement.variant, self.look, placement.layout.cast
            key = SceneKey(*named, placement.physics, placement.bodies)
            self._keys[lane], self._sights[lane] = key, placement.sight
            self._pool(key, placement.task).place(lane, placement.layout, placement.qpos)

    def _pool(self, key: SceneKey, task: Task) -> _Pool:
        if key not in self._pools:
            # Protocols have hundreds of scenes: of many that no environment shows the oldest are dropped.
            unused = [known for known in self._pools if known not in self._keys]
            for known in unused[: max(0, len(self._pools) - _MOST_IDLE_SCENES)]:
                del self._pools[known]
            scene = build_scene(task, key.variant, cast=key.cast, physics=key.physics, bodies=key.bodies)
            self._pools[key] = _Pool(scene, self._num_lanes, self._threads)
        return self._pools[key]

    def _groups(self, lanes: Ints) -> dict[SceneKey, list[int]]:
        """Scene -> rows of ``lanes`` that show it."""
        groups: dict[SceneKey, list[int]] = {}
        for row, lane in enumerate(lanes):
            key = self._keys[lane]
            if key is None:
                raise SimulationError(f"Environment {lane} is not placed: reset it before it is stepped.")
            groups.setdefault(key, []).append(row)
        return groups

    def step(self, lanes: Ints, targets: DriveTargets) -> None:
        """Run one control step on ``lanes``."""
        for key, rows in self._groups(lanes).items():
            speed = None if targets.velocity is None else targets.velocity[rows]
            self._pools[key].step(lanes[rows], targets.position[rows], speed)

    def read(self, lanes: Ints) -> list[Reading]:
        """Simulator states of ``lanes``."""
        readings = []
        for lane in lanes:
            key = self._keys[lane]
            assert key is not None
            readings.append(self._pools[key].read(int(lane)))
        return readings

    def images(self, lanes: Ints, camera: str = POLICY_CAMERA) -> NDArray[np.uint8]:
        """Images of a camera of the robot, ``[B, H, W, 3]``; the array is the caller's."""
        if self._renderer is None:
            self._renderer = RenderPool(self._num_lanes, self._render_processes, assets=self._assets)
        jobs = []
        for lane in lanes:
            key = self._keys[lane]
            assert key is not None
            pool, drawn = self._pools[key], key._replace(physics=NOMINAL_PHYSICS)
            state = pool.batch.qpos[lane], pool.base_pose(int(lane))
            jobs.append(Job(drawn, *state, camera, sight=self._sights[lane], size=self.image_size))
        return self._renderer.render(jobs)

    def displace(self, lane: int, body: int, offset: tuple[float, float]) -> None:
        """Move an object of an environment, by its number among the task's objects, along world x and y (m); it is at
        rest.
        """
        key = self._keys[lane]
        assert key is not None
        self._pools[key].displace(lane, body, offset)

    def get_state(self) -> dict[str, Any]:
        """The scene of each environment and its full integration state."""
        rows = [None if key is None else self._pools[key].batch.state[i].copy() for i, key in enumerate(self._keys)]
        return {"keys": list(self._keys), "rows": rows, "sights": list(self._sights)}

    def set_state(self, state: dict[str, Any]) -> None:
        """Puts :meth:`get_state`'s answer back; scenes not seen here before are compiled."""
        self._keys = list(state["keys"])
        # Snapshots of earlier versions know of no perturbations.
        self._sights = list(state.get("sights", [NOMINAL_SIGHT] * self._num_lanes))
        for lane, (key, row) in enumerate(zip(self._keys, state["rows"], strict=True)):
            if key is not None:
                self._pool(key, get_task(key.task)).batch.state[lane] = row

    def close(self) -> None:
        """Stop the render processes and drop the batches."""
        if self._renderer is not None:
            self._renderer.close()
            self._renderer = None
        self._pools.clear()


class _Pool:
    """All environments of one scene."""

    def __init__(self, scene: Scene, num_lanes: int, threads: int) -> None:
        self.scene = scene
        # Not in scenes that are drawn: cameras that are moved would stay where they stood.
        scene.model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_SLEEP)
        scene.model.opt.sleep_tolerance = _SLEEP_SPEED
        # Who sleeps is kept beside the state: only a persistent batch has it per environment.
        self.batch: Any = Batch(scene.model, num_lanes, nthread=threads, persistent=True)
        # Live views: looking them up again for every environment would cost more than reading them.
        self._qpos, self._qvel, self._forces = (self.batch.bind(name) for name in ("qpos", "qvel", "sensordata"))
        self._substeps = scene.substeps
        self._timestep = float(scene.model.opt.timestep)
        self._columns = [scene.sensors[:, None] + np.arange(3)]
        self._touch_columns = [scene.touches[..., None] + np.arange(3)]

    def place(self, lane: int, layout: Layout, qpos: Floats) -> None:
        """Put an environment into a layout, everything at rest, the drives' targets where the joints are: ``qpos
        [J]``.
        """
        scene = self.scene
        self.batch.reset([lane], stage=_NO_FORWARD)
        row = self.batch.qpos[lane]
        write_qpos(scene, row, qpos, layout.object_pose, layout.joints)
        if scene.base >= 0:
            base = np.array(layout.base_pose)
            self.batch.mocap_pos[lane, scene.base], self.batch.mocap_quat[lane, scene.base] = base[:3], base[3:]
        self.batch.ctrl[lane, scene.drives] = qpos

    def displace(self, lane: int, body: int, offset: tuple[float, float]) -> None:
        """Move an object along world x and y (m) and leave it at rest."""
        pose, speed = self.scene.object_qpos[body], self.scene.object_qvel[body]
        self.batch.qpos[lane, pose : pose + 2] += offset
        self.batch.qvel[lane, speed : speed + 6] = 0.0

    def base_pose(self, lane: int) -> Floats | None:
        """The pose of the robot's base, ``[7]``; None if it is the same in all layouts."""
        base = self.scene.base
        if base < 0:
            return None
        return np.concatenate([self.batch.mocap_pos[lane, base], self.batch.mocap_quat[lane, base]])

    def step(self, lanes: Ints, position: Floats, speed: Floats | None) -> None:
        """``position [B, S, J]``: S targets, each held for an equal share of the control step; so is ``speed``.

        A drive's torque is ``kp (q* - q) + kd (v* - v)``: a speed target acts like a position target further ahead.
        """
        schedule = position.shape[1]
        if speed is not None:
            position = position + self.scene.lead * speed
        self._wake(lanes)
        try:
            if schedule == 1:
                self.batch.ctrl[lanes[:, None], self.scene.drives] = position[:, 0]
                self.batch.step(lanes, nstep=self._substeps)
            else:
                # Of several targets that fall into one substep the middle one is followed.
                picks = (2 * np.arange(self._substeps) + 1) * schedule // (2 * self._substeps)
                control = np.zeros((len(lanes), self._substeps, self.scene.model.nu))
                control[:, :, self.scene.drives] = position[:, picks]
                state = int(mujoco.mjtState.mjSTATE_CTRL)
                self.batch.rollout(self._substeps, control, state, record=(), ids=lanes)
        except BatchError as error:
            raise SimulationError(f"MuJoCo could not step environments {lanes.tolist()}: {error}.") from error
        diverged = lanes[~np.isfinite(self.batch.state[lanes]).all(-1)]
        if len(diverged):
            raise SimulationError(f"The simulation of environments {diverged.tolist()} diverged: reset them.")

    def _wake(self, lanes: Ints) -> None:
        """Wake all objects, so that what a control step does depends on the state alone: who sleeps, and who is about
        to, is no part of it, and a run that was restored would go on otherwise.
        """
        state = self.batch.state[lanes]
        self.batch.reset(lanes, stage=_NO_FORWARD)
        self.batch.state[lanes] = state

    def read(self, lane: int) -> Reading:
        """The state of an environment after its last control step."""
        scene, qpos, qvel = self.scene, self._qpos[lane], self._qvel[lane]
        poses = scene.object_pose.copy()
        for i, start in enumerate(scene.object_qpos):
            if start >= 0:
                poses[i] = qpos[start : start + 7]
        return Reading(
            qpos=qpos[scene.robot_qpos],
            qvel=qvel[scene.robot_qvel],
            object_pose=poses,
            impulse=self._forces[lane][tuple(self._columns)] * self._timestep,
            joints={name: float(qpos[i]) for name, i in scene.joint_qpos.items()},
            touch=self._forces[lane][tuple(self._touch_columns)] * self._timestep,
        )
