"""The child's end of a render process: reads jobs from standard input, writes images into mapped memory."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import mujoco
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.child import serve
from vlaser_gym.envs.engines.mujoco.original.backdrop import Backdrop
from vlaser_gym.envs.engines.mujoco.rendering import Job, SceneKey, View, mapped
from vlaser_gym.envs.engines.mujoco.scene import build_scene
from vlaser_gym.envs.engines.mujoco.scenery import SHADOWED
from vlaser_gym.envs.engines.mujoco.seen import SeenModel
from vlaser_gym.envs.engines.mujoco.segmentation import drawn_values, label_values, segment_labels
from vlaser_gym.envs.engines.mujoco.shadows import ContactShadows
from vlaser_gym.envs.engines.mujoco.views import find_view, hide_walls, viewpoint
from vlaser_gym.envs.robots import POLICY_CAMERA, get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import RenderingUnavailableError

#: Scenes that a process keeps ready to draw.
_MOST_SCENES = 32
#: What makes MuJoCo draw the number of each shape in place of its colour.
_NUMBERED = [int(mujoco.mjtRndFlag.mjRND_SEGMENT), int(mujoco.mjtRndFlag.mjRND_IDCOLOR)]


class _Artist:
    """One scene's model, data and OpenGL context, for images ``size`` (height, width) of one of its cameras.

    Photographs are of what the policy's camera sees: they stand behind the foreground of its images only.
    """

    def __init__(self, key: SceneKey, camera_name: str, size: tuple[int, int], view: View) -> None:
        task, is_policy = get_task(key.task), camera_name == POLICY_CAMERA
        pack = AssetPack(view.assets) if key.look == "original" else None
        photograph = pack is not None and is_policy and bool(task.photograph(key.variant))
        named = (task, key.variant, key.look, key.cast, pack, photograph)
        scene = build_scene(*named, whole_robot=not is_policy, bodies=key.bodies)
        cameras = get_setup(task.robot_setup).cameras
        camera = cameras.get(camera_name, cameras[POLICY_CAMERA])
        self.model, self.data = scene.model, mujoco.MjData(scene.model)
        self.base = scene.base
        self.camera: str | mujoco.MjvCamera = camera.name
        if camera_name not in cameras:
            self.camera = viewpoint(task, key.variant, find_view(camera_name))
            hide_walls(scene.model)
        self.size = size
        self._backdrop: Backdrop | None = None
        if photograph and pack is not None and not view.keyed:
            self._backdrop = Backdrop(task, key.variant, pack, self.size)
        self._seen = SeenModel(scene.model)
        shadowed = key.look == "builtin" and task.scenery in SHADOWED
        self._shadows = ContactShadows(scene.model) if shadowed else None
        self._labels = label_values(scene.model, segment_labels(task, key.cast))
        self._drawn: tuple[int, NDArray[np.uint8]] | None = None
        self._renderer: Any = None

    def draw(self, job: Job, out: NDArray[np.uint8]) -> None:
        """Put the image of a state into ``out [H, W, 3]``, or its segmentation into ``[H, W, 1]``.

        Raises:
            RenderingUnavailableError: if there is no OpenGL, which is found out with the first image.
        """
        if self._renderer is None:
            self._renderer = self._open_context()
        self.data.qpos[:] = job.qpos
        if job.base is not None:
            self.data.mocap_pos[self.base], self.data.mocap_quat[self.base] = job.base[:3], job.base[3:]
        self._seen.show(job.sight)
        mujoco.mj_kinematics(self.model, self.data)
        mujoco.mj_comPos(self.model, self.data)
        mujoco.mj_camlight(self.model, self.data)
        self._renderer.update_scene(self.data, self.camera)
        if job.segmentation:
            self._segment(out)
            return
        if self._shadows is not None:
            self._shadows.add_to(self._renderer.scene, self.data)
        self._renderer.render(out=out)
        if self._backdrop is not None:
            self._backdrop.put_behind(out, job.base)

    def _segment(self, out: NDArray[np.uint8]) -> None:
        scene = self._renderer.scene
        if self._drawn is None or scene.ngeom != self._drawn[0]:
            # Of a scene the same shapes are drawn in the same order every time; looking them up takes a second.
            self._drawn = scene.ngeom, drawn_values(scene, self._labels)
        scene.flags[_NUMBERED] = True
        numbers = self._renderer.render().astype(np.uint32)
        scene.flags[_NUMBERED] = False
        out[..., 0] = self._drawn[1][numbers[..., 0] + (numbers[..., 1] << 8) + (numbers[..., 2] << 16)]

    def close(self) -> None:
        """Free the OpenGL context."""
        if self._renderer is not None:
            self._renderer.close()

    def _open_context(self) -> Any:
        try:
            return mujoco.Renderer(self.model, *self.size, max_geom=1000)
        except Exception as error:  # drivers fail in many ways, with many types
            backend = os.environ.get("MUJOCO_GL", "default")
            raise RenderingUnavailableError(
                f"No images can be made here (OpenGL backend {backend!r}: {type(error).__name__}: {error}). "
                f"{_ADVICE.get(backend, _ADVICE['default'])}, or use observations without images and video=0; "
                "`python -m vlaser_gym.doctor` tells more."
            ) from error


class _Server:
    def __init__(self) -> None:
        self._artists: dict[tuple[SceneKey, str, tuple[int, int]], _Artist] = {}
        self._view = View()
        self._pixels: NDArray[np.uint8] | None = None

    def answer(self, command: str, *arguments: Any) -> Any:
        """``open`` shared memory for images; ``render`` jobs into it."""
        handlers: dict[str, Callable[..., Any]] = {"open": self._open, "render": self._render}
        return handlers[command](*arguments)

    def _artist(self, job: Job) -> _Artist:
        """The renderer of a scene; of the many scenes of a protocol the most recently used stay loaded."""
        height, width, _ = job.shape
        key = job.key, job.camera, (height, width)
        if key not in self._artists and len(self._artists) >= _MOST_SCENES:
            self._artists.pop(next(iter(self._artists))).close()
        artist = self._artists.pop(key, None) or _Artist(*key, self._view)
        self._artists[key] = artist
        return artist

    def _open(self, memory: int, size: int, view: View) -> None:
        self._view = view
        self._pixels = mapped(memory, size)

    def _render(self, shape: tuple[int, int, int], jobs: list[tuple[int, Job]]) -> None:
        assert self._pixels is not None
        size = int(np.prod(shape))
        for slot, job in jobs:
            self._artist(job).draw(job, self._pixels[slot * size : (slot + 1) * size].reshape(shape))


_INSTALL_EGL = "Install Mesa's EGL (Debian: libegl1 libgl1-mesa-dri)"
#: What helps where a backend has just failed: never that backend again.
_ADVICE = {
    "egl": f"{_INSTALL_EGL}, set MUJOCO_GL=osmesa with OSMesa installed (Debian: libosmesa6)",
    "osmesa": f"{_INSTALL_EGL} and leave MUJOCO_GL unset, install OSMesa (Debian: libosmesa6)",
    "glfw": f"{_INSTALL_EGL} and leave MUJOCO_GL unset",
    "default": f"{_INSTALL_EGL} and set MUJOCO_GL=egl",
}


if __name__ == "__main__":
    serve(_Server().answer)
