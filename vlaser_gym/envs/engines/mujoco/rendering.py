"""Images of MuJoCo scenes, made by separate processes.

Software OpenGL uses one core per process and little more with threads, so each core gets a process of its own. A
process compiles the scenes it is asked for, receives ``qpos`` rows and writes the images into memory that both sides
map. The parent needs no OpenGL at all: where no driver is found, only asking for an image fails.
"""

from __future__ import annotations

import mmap
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import NOMINAL_PHYSICS, NOMINAL_SIGHT, Body, Physics, Sight
from vlaser_gym.envs.engines.child import Child
from vlaser_gym.envs.engines.mujoco.original.backdrop import is_key
from vlaser_gym.envs.engines.mujoco.scene import Scene, build_scene, write_qpos
from vlaser_gym.envs.engines.mujoco.segmentation import segment_labels
from vlaser_gym.envs.robots import POLICY_CAMERA, get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import RenderingUnavailableError

_MAX_PROCESSES = 4


class SceneKey(NamedTuple):
    """The inputs from which a scene is compiled; ``physics`` is nominal for a scene that is only drawn.

    ``bodies``: objects that differ from the catalogue's.
    """

    task: str
    variant: str
    look: str
    cast: str = ""
    physics: Physics = NOMINAL_PHYSICS
    bodies: tuple[Body, ...] = ()


class Job(NamedTuple):
    """An image to be rendered.

    Attributes:
        key: the scene.
        qpos: its state.
        base: the robot's base pose ``[7]`` where layouts bring their own.
        camera: name of the robot's camera, or of a view of the scene; see ``views.py``.
        segmentation: labels of :func:`segment_labels` in place of colours.
        sight: in what it differs from the scene's own images.
        size: width and height in pixels; None for the camera's own.
    """

    key: SceneKey
    qpos: NDArray[np.float64]
    base: NDArray[np.float64] | None = None
    camera: str = POLICY_CAMERA
    segmentation: bool = False
    sight: Sight = NOMINAL_SIGHT
    size: tuple[int, int] | None = None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the image."""
        cameras = get_setup(get_task(self.key.task).robot_setup).cameras
        camera = cameras.get(self.camera, cameras[POLICY_CAMERA])
        width, height = self.size or (camera.width, camera.height)
        return height, width, 1 if self.segmentation else 3


class View(NamedTuple):
    """The render settings that all images of a pool share.

    Attributes:
        assets: directory of the asset pack; None for the user's cache.
        keyed: the backdrop's key is left where a photograph would be put.
    """

    assets: str | None = None
    keyed: bool = False


class RenderPool:
    """Processes that render up to ``num_slots`` images per call.

    Args:
        num_slots: most images per call.
        processes: None for one per usable core, at most four and no more than there are slots.
        assets: directory of the asset pack, for the look ``"original"``; None for the user's cache.
        keyed: leave the backdrop's key where a photograph would be put.
    """

    def __init__(
        self,
        num_slots: int,
        processes: int | None = None,
        assets: str | None = None,
        keyed: bool = False,
    ) -> None:
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        count = min(processes or min(cores, _MAX_PROCESSES), num_slots)
        # Memory without a name: whatever happens to the processes, nothing stays behind.
        self._memory = os.memfd_create("vlaser_gym")
        self._slots = num_slots
        self._view = View(assets, keyed)
        self._pixels: NDArray[np.uint8] = np.zeros(0, np.uint8)
        self._workers = [_Worker(self._memory) for _ in range(count)]

    def render(self, jobs: Sequence[Job]) -> NDArray[np.uint8]:
        """One image ``[H, W, 3]`` per job, stacked; a fresh array. All jobs are for cameras of one size.

        Segmentations are ``[H, W, 1]``; a call makes either them or images.

        Raises:
            RenderingUnavailableError: if no OpenGL driver can make images here.
        """
        shape = jobs[0].shape
        size = int(np.prod(shape))
        if self._slots * size > len(self._pixels):
            self._open(self._slots * size)
        shares = np.array_split(np.arange(len(jobs)), len(self._workers))
        busy = [(worker, share) for worker, share in zip(self._workers, shares, strict=True) if len(share)]
        for worker, share in busy:
            worker.send(("render", shape, [(int(i), jobs[i]) for i in share]))
        for worker, _ in busy:
            worker.receive()
        return np.array(self._pixels[: len(jobs) * size].reshape(len(jobs), *shape))

    def _open(self, size: int) -> None:
        """Give the memory that many bytes, map it, tell all processes."""
        os.ftruncate(self._memory, size)
        for worker in self._workers:
            worker.send(("open", self._memory, size, self._view))
        for worker in self._workers:
            worker.receive()
        self._pixels = mapped(self._memory, size)

    def close(self) -> None:
        """End the processes and free the memory."""
        for worker in self._workers:
            worker.close()
        self._workers = []
        self._pixels = np.zeros(0, np.uint8)
        if self._memory >= 0:
            os.close(self._memory)
        self._memory = -1


def mapped(memory: int, size: int) -> NDArray[np.uint8]:
    """The memory behind a descriptor as an array of bytes; it stays mapped as long as the array lives."""
    return np.frombuffer(mmap.mmap(memory, size), np.uint8)


class SceneRenderer:
    """Images of recorded states, one at a time or in batches.

    Args:
        look: which look to render with.
        batch: most images per call of :meth:`frames`.
        processes, assets: as for :class:`RenderPool`.

    Raises:
        MissingAssetError: if the look needs the asset pack and it is not there.
    """

    def __init__(
        self, look: str = "builtin", batch: int = 1, processes: int | None = None, assets: str | None = None
    ) -> None:
        self.look = look
        self._assets = None if look == "builtin" else str(AssetPack(assets).directory)
        self._pool = RenderPool(batch, processes, assets=self._assets)
        self._keyed: RenderPool | None = None
        self._scenes: dict[SceneKey, Scene] = {}

    def frame(
        self, task: str, variant: str, state: Mapping[str, ArrayLike], camera: str = POLICY_CAMERA
    ) -> NDArray[np.uint8]:
        """``[H, W, 3]`` image of a state with the names that :meth:`Lane.state` gives it."""
        return np.asarray(self.frames(task, variant, [state], camera)[0])

    def frames(
        self,
        task: str,
        variant: str,
        states: Sequence[Mapping[str, ArrayLike]],
        camera: str = POLICY_CAMERA,
        sight: Sight = NOMINAL_SIGHT,
        bodies: tuple[Body, ...] = (),
    ) -> NDArray[np.uint8]:
        """``[B, H, W, 3]`` images of at most ``batch`` states of one task, by a camera of its robot."""
        named = [(task, variant, self.look, _cast_of(task, variant, state)) for state in states]
        keys = [SceneKey(*names, bodies=bodies) for names in named]
        jobs = [self._job(key, state, camera) for key, state in zip(keys, states, strict=True)]
        return self._pool.render([job._replace(sight=sight) for job in jobs])

    def scenes(
        self, shown: Sequence[tuple[str, str, Mapping[str, ArrayLike]]], segmentation: bool = False
    ) -> NDArray[np.uint8]:
        """Images ``[B, H, W, 3]`` of at most ``batch`` states of any tasks whose cameras have one size.

        Args:
            shown: task, variant and state of each.
            segmentation: instead, ``[B, H, W]``: which of :meth:`labels` each pixel shows, counted from 1; 0 for none.
        """
        keys = [SceneKey(task, variant, self.look, _cast_of(task, variant, state)) for task, variant, state in shown]
        jobs = [self._job(key, state) for key, (_, _, state) in zip(keys, shown, strict=True)]
        pictures = self._pool.render([job._replace(segmentation=segmentation) for job in jobs])
        return pictures[..., 0] if segmentation else pictures

    def labels(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> tuple[str, ...]:
        """The labels of the values in a segmentation of this state; see :func:`segment_labels`."""
        return segment_labels(get_task(task), _cast_of(task, variant, state))

    def foreground(self, task: str, variant: str, state: Mapping[str, ArrayLike]) -> NDArray[np.bool_]:
        """``[H, W]``: where :meth:`frame` shows robot, objects or cabinet, not the photograph (look ``"original"``)."""
        if self._keyed is None:
            self._keyed = RenderPool(1, 1, assets=self._assets, keyed=True)
        key = SceneKey(task, variant, self.look, _cast_of(task, variant, state))
        return ~is_key(self._keyed.render([self._job(key, state)])[0])

    def _job(self, key: SceneKey, state: Mapping[str, ArrayLike], camera: str = POLICY_CAMERA) -> Job:
        task = get_task(key.task)
        if key not in self._scenes:
            self._scenes[key] = build_scene(task, key.variant, cast=key.cast, bodies=key.bodies)
        scene = self._scenes[key]
        poses = scene.object_pose.copy()
        for i, obj in enumerate(task.objects_of(key.cast)):
            poses[i] = state[f"object/{obj.name}"]
        joints = {name: float(np.asarray(state[f"joint/{name}"])) for name in scene.joint_qpos}
        row = np.array(scene.model.qpos0)
        write_qpos(scene, row, np.asarray(state["qpos"], np.float64), poses, joints)
        return Job(key, row, None if scene.base < 0 else np.asarray(state["base_pose"], np.float64), camera)

    def close(self) -> None:
        """Terminate the render processes."""
        for pool in (self._pool, self._keyed):
            if pool is not None:
                pool.close()


def _cast_of(task: str, variant: str, state: Mapping[str, ArrayLike]) -> str:
    """The cast whose objects a recorded state holds; empty where these are a task's own that has one cast only."""
    names = [name.removeprefix("object/") for name in state if name.startswith("object/")]
    has_casts = bool(get_task(task).layout("grid:0", variant).cast)
    own = {body.name for body in get_task(task).objects}
    return "+".join(names) if has_casts or set(names) != own else ""


def _display_answers(name: str) -> bool:
    """True if an X server listens at a display such as ``:0`` or ``localhost:10.0``; ssh and tmux leave stale names."""
    host, _, number = name.rpartition(":")
    try:
        port = 6000 + int(number.partition(".")[0])
        if host in ("", "unix"):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
                server.connect(f"/tmp/.X11-unix/X{port - 6000}")
        else:
            socket.create_connection((host, port), timeout=2).close()
    except (OSError, ValueError, OverflowError):
        return False
    return True


class _Worker(Child):
    """The parent's end of one render process."""

    def __init__(self, memory: int) -> None:
        environment = dict(os.environ)
        if sys.platform.startswith("linux") and not _display_answers(environment.get("DISPLAY", "")):
            # Without a display MuJoCo's own default (GLFW) cannot work; EGL can.
            environment.setdefault("MUJOCO_GL", "egl")
        super().__init__("vlaser_gym.envs.engines.mujoco.render_worker", environment, [memory])

    def gone(self, last_words: str) -> RenderingUnavailableError:
        """The exception for a process that has ended."""
        return RenderingUnavailableError(
            "A render process ended unexpectedly; `python -m vlaser_gym.doctor` checks the OpenGL driver. "
            f"Its last words: {last_words}"
        )
