"""The original SimplerEnv, in a process of its own: ``python worker.py SOCKET MEMORY SIZE``.

This file runs in an interpreter of the user's in which ``simpler_env`` can be imported (Python 3.8 or later) and needs
nothing but the standard library, numpy and that. It inherits two file descriptors: a socket, on which it answers one
line of JSON with another, and memory of SIZE bytes, into which it writes images. It ends with the socket.

The first line is the worker's own: ``{"ok": versions}``, or ``{"error": ..., "during": "import"}``. Commands:

- ``{"do": "place", "episode": {...}, "robot": {...}, "state": null, "rebuild": false, "pictures": true}``: reset the
  episode's environment; see ``vlaser_gym.envs.engines.simpler.episodes.Episode``. It is built unless the last episode's
  was built alike, or always if told to ``rebuild``; without ``pictures`` it renders nothing, not even when it is built.
  ``state`` moves robot, bodies and drawers afterwards. Answers the state, and with it the ``settings`` that the
  environment tells of itself. ``robot`` names its links ``tcp`` and ``base``, its ``camera`` and the ``fingers`` by
  their indices in ``qpos``, and tells if they are open at their upper limits (``open_at_limit``) or at 0.
- ``{"do": "step", "action": [7 numbers]}``: one control step. Answers the state.
- ``{"do": "advance"}``: the policy declares the current sub-task done. Answers the state.
- ``{"do": "picture"}``: what the robot's camera sees now, into the memory. Answers its shape. Nothing is rendered
  otherwise, but for once when an environment is built with ``pictures``.
- ``{"do": "foreground"}``: which of its pixels show robot, bodies or cabinet, a byte each. Answers the shape.

A state has ``qpos``, ``qvel``, ``base`` (pose of the robot's root link), ``objects`` (name -> pose), ``joints`` (name
-> position), ``proprio``, ``instruction``, ``subtask``, ``success``, ``info`` and ``stats`` (the scalars of ``info``
and of its ``episode_stats``). Poses are ``x y z qw qx qy qz``.
"""

from __future__ import annotations

import gc
import hashlib
import json
import mmap
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

#: With what the original's constructor seeds its random numbers (ManiSkill2_real2sim ef7a4d4).
MAIN_SEED = 2022
#: Names of bodies that the original takes for background.
BACKGROUND = ("ground", "goal_site", "", "arena")
#: What an environment tells of itself, and the attribute in which it does.
SETTINGS = {
    "robot": "robot_uid",
    "control_mode": "control_mode",
    "control_freq": "control_freq",
    "sim_freq": "sim_freq",
    "scene_name": "scene_name",
    "enable_shadow": "enable_shadow",
    "rgb_overlay_mode": "rgb_overlay_mode",
    "rgb_overlay_cameras": "rgb_overlay_cameras",
}


class Scene:
    """Holder of at most one environment, which lives as long as episodes want one that is built alike."""

    def __init__(self, memory: mmap.mmap) -> None:
        self.memory = memory
        self.env: Any = None
        self.recipe = ""
        self.pictures = ""
        self.robot: dict[str, Any] = {}
        self.info: dict[str, Any] = {}
        self.success = False
        self.starts_final = True

    def place(
        self,
        episode: dict[str, Any],
        robot: dict[str, Any],
        state: dict[str, Any] | None,
        rebuild: bool,
        pictures: bool,
    ) -> dict[str, Any]:
        """Reset the environment to the start of an episode."""
        self.robot = robot
        recipe = json.dumps([pictures, *(episode[name] for name in ("make", "prepackaged", "kwargs"))], sort_keys=True)
        if rebuild or self.env is None or recipe != self.recipe:
            self.close()
            self.env = build(episode, pictures)
            self.recipe = recipe
            # From now on an observation is empty, until an image is asked for.
            self.pictures, self.base._obs_mode = self.base._obs_mode, "none"
        else:
            self.renew()
        self.base.reset(options=with_arrays(episode["options"]))
        self.info, self.success = {}, False
        self.starts_final = self.is_final()
        if state is not None:
            self.arrange(state)
        return {**self.state(), "settings": self.settings()}

    def renew(self) -> None:
        """Bring the environment to where its constructor leaves it, by what the constructor does at its end.

        The scene is made anew, and the random numbers begin again. An episode that begins from here is that of a new
        environment, to the last bit; one that is only reset with a new scene is not: the constructor has reset once
        before, which leaves traces in the physics, and distractors lie where the random numbers have come to.
        """
        base = self.base
        base.set_main_rng(MAIN_SEED)
        base.reset(seed=MAIN_SEED, options={"reconfigure": True})
        gc.collect()

    def step(self, action: list[float]) -> dict[str, Any]:
        """Advance the simulation by one control step."""
        _, _, self.success, _, self.info = self.base.step(np.array(action))
        return self.state()

    def advance(self) -> dict[str, Any]:
        """Declare the current sub-task done."""
        if not self.is_final():
            self.base.advance_to_next_subtask()
        return self.state()

    def picture(self) -> dict[str, Any]:
        """Write the image of the robot's camera into the memory."""
        from simpler_env.utils.env.observation_utils import (  # noqa: PLC0415
            get_image_from_maniskill2_obs_dict,
        )

        observation = self.observe()
        # What the wrappers make of an observation is theirs to know.
        layers, layer = [], self.env
        while layer is not self.base:
            layers.append(layer)
            layer = layer.env
        for layer in reversed(layers):
            if hasattr(type(layer), "observation"):
                observation = layer.observation(observation)
        return self.share(get_image_from_maniskill2_obs_dict(self.base, observation))

    def foreground(self) -> dict[str, Any]:
        """Write into the memory which pixels the original keeps before its photograph, 1 or 0."""
        base = self.base
        bodies = [actor for actor in base.get_actors() if actor.name not in BACKGROUND]
        links = [link for articulation in base.get_articulations() for link in articulation.get_links()]
        segments = self.observe()["image"][self.robot["camera"]]["Segmentation"][..., 1]
        return self.share(np.isin(segments, [part.id for part in (*bodies, *links)]).astype(np.uint8))

    def share(self, image: Any) -> dict[str, Any]:
        """Write bytes of an image into the memory, and tell its shape."""
        image = np.ascontiguousarray(image)
        if image.dtype != np.uint8 or image.nbytes > len(self.memory):
            raise ValueError(f"the camera's image is {image.dtype} of shape {image.shape}")
        self.memory[: image.nbytes] = image.tobytes()
        return {"shape": list(image.shape)}

    def observe(self) -> dict[str, Any]:
        """The original's observation, limited to one camera (and those on which it overlays photographs)."""
        if self.pictures == "none":
            raise ValueError("this environment was built to render nothing")
        base = self.base
        seen = {self.robot["camera"], *base.rgb_overlay_cameras}
        cameras, mode = base._cameras, base._obs_mode
        base._cameras = type(cameras)((name, camera) for name, camera in cameras.items() if name in seen)
        base._obs_mode = self.pictures
        try:
            return dict(base.get_obs())
        finally:
            base._cameras, base._obs_mode = cameras, mode

    def settings(self) -> dict[str, Any]:
        """The settings that the environment reports, by the names of its keyword arguments."""
        base, camera = self.base, self.robot["camera"]
        shaders = getattr(sys.modules.get("sapien.core"), "render_config", None)
        overlay = getattr(base, "rgb_overlay_path", None)
        seen = getattr(base, "_camera_cfgs", {}).get(camera)
        told = {
            **{name: getattr(base, own, None) for name, own in SETTINGS.items()},
            "shader_dir": getattr(shaders, "camera_shader_dir", None),
            "rgb_overlay_path": None if overlay is None else os.path.basename(str(overlay)),
            "camera": None if seen is None else f"{camera} {seen.width}x{seen.height}",
            "step_limit": self.step_limit(),
        }
        plain = (bool, int, float, str, list)
        return {name: value for name, value in told.items() if isinstance(value, plain)}

    def step_limit(self) -> int | None:
        """Control steps after which the original ends an episode itself."""
        layer = self.env
        while layer is not self.base:
            if getattr(layer, "_max_episode_steps", None) is not None:
                return int(layer._max_episode_steps)
            layer = layer.env
        return None

    def arrange(self, state: dict[str, Any]) -> None:
        """Put robot, bodies and drawers where they are told to be, at rest."""
        base = self.base
        for actor in base.get_actors():
            pose = state["objects"].get(actor.name)
            if pose is not None:
                actor.set_pose(type(actor.pose)(pose[:3], pose[3:]))
                actor.set_velocity(np.zeros(3))
                actor.set_angular_velocity(np.zeros(3))
        self.arrange_drawers(state["joints"])
        robot = base.agent.robot
        if state["base"] is not None:
            robot.set_pose(type(robot.pose)(state["base"][:3], state["base"][3:]))
        base.agent.reset(np.array(state["qpos"]))

    def arrange_drawers(self, positions: dict[str, float]) -> None:
        """Put drawers where they are told to be, unless they are there."""
        cabinet = getattr(self.base, "art_obj", None)
        if cabinet is None:
            return
        qpos = np.array(cabinet.get_qpos())
        told = [positions.get(joint.name, value) for joint, value in zip(cabinet.get_active_joints(), qpos)]  # noqa: B905
        if np.abs(qpos - told).max() > 1e-6:
            cabinet.set_qpos(np.array(told))
            cabinet.set_qvel(np.zeros(len(told)))

    def state(self) -> dict[str, Any]:
        """Everything that is told of an episode."""
        base = self.base
        robot = base.agent.robot
        cabinet = getattr(base, "art_obj", None)
        joints = [] if cabinet is None else zip(cabinet.get_active_joints(), cabinet.get_qpos())  # noqa: B905
        return {
            "qpos": numbers(robot.get_qpos()),
            "qvel": numbers(robot.get_qvel()),
            "base": pose_of(robot),
            "objects": {actor.name: pose_of(actor) for actor in base.get_actors() if actor.name},
            "joints": {joint.name: float(position) for joint, position in joints},
            "proprio": proprioception(robot, self.robot),
            "instruction": str(base.get_language_instruction()),
            "subtask": int(self.is_final() and not self.starts_final),
            "success": bool(self.success),
            "info": scalars(self.info),
            "stats": scalars(self.info.get("episode_stats", {})),
        }

    @property
    def base(self) -> Any:
        """The environment without its wrappers."""
        return self.env.unwrapped

    def is_final(self) -> bool:
        """The episode is in its last sub-task; most have one only, and older releases do not ask."""
        ask = getattr(self.base, "is_final_subtask", None)
        return ask is None or bool(ask())

    def close(self) -> None:
        """Free the environment's memory before the next is built."""
        if self.env is not None:
            self.env.close()
            self.env = None
            gc.collect()


def build(episode: dict[str, Any], pictures: bool) -> Any:
    """The environment of an episode."""
    import simpler_env  # noqa: PLC0415

    # Told to observe nothing it never renders, and takes less than half the memory.
    kwargs = dict(episode["kwargs"], **({} if pictures else {"obs_mode": "none"}))
    if episode["prepackaged"]:
        return simpler_env.make(episode["make"], **kwargs)
    from simpler_env.utils.env.env_builder import build_maniskill2_env  # noqa: PLC0415

    if kwargs.get("rgb_overlay_path") is not None:
        from mani_skill2_real2sim import ASSET_DIR  # noqa: PLC0415

        kwargs["rgb_overlay_path"] = str(Path(ASSET_DIR) / "real_inpainting" / kwargs["rgb_overlay_path"])
    return build_maniskill2_env(episode["make"], **kwargs)


def with_arrays(options: dict[str, Any]) -> dict[str, Any]:
    """Reset options as the original's evaluation passes them: places and quaternions are arrays."""
    return {
        name: with_arrays(value) if isinstance(value, dict) else np.array(value) if isinstance(value, list) else value
        for name, value in options.items()
    }


def pose_of(body: Any) -> list[float]:
    """``x y z qw qx qy qz`` in the world."""
    pose = body.pose
    return numbers(pose.p) + numbers(pose.q)


def proprioception(robot: Any, names: dict[str, Any]) -> list[float]:
    """TCP position and quaternion wxyz (w >= 0) in the base link's frame, and the gripper's openness."""
    links = {link.name: link for link in robot.get_links()}
    tcp, base = np.array(pose_of(links[names["tcp"]])), np.array(pose_of(links[names["base"]]))
    turn = base[3:] / np.linalg.norm(base[3:])
    back = turn * [1, -1, -1, -1]
    position = product(product(back, np.append(0.0, tcp[:3] - base[:3])), turn)[1:]
    quaternion = product(back, tcp[3:])
    quaternion *= (1.0 if quaternion[0] >= 0 else -1.0) / np.linalg.norm(quaternion)
    return numbers(position) + numbers(quaternion) + [1.0 - closedness(robot, names["fingers"], names["open_at_limit"])]


def closedness(robot: Any, fingers: list[int], open_at_limit: bool) -> float:
    """0 open, 1 closed; never below 0."""
    qpos = np.asarray(robot.get_qpos(), np.float64)[fingers]
    low, high = np.asarray(robot.get_qlimits(), np.float64)[fingers].T
    closed = (high - qpos) / (high - low) if open_at_limit else qpos / high
    return max(float(closed.mean()), 0.0)


def product(a: Floats, b: Floats) -> Floats:
    """Product of two quaternions wxyz."""
    w, v = a[0] * b[0] - np.dot(a[1:], b[1:]), a[0] * b[1:] + b[0] * a[1:] + np.cross(a[1:], b[1:])
    return np.append(w, v)


def numbers(values: Any) -> list[float]:
    """The values as Python's own numbers."""
    return [float(value) for value in np.asarray(values, np.float64).ravel()]


def scalars(values: dict[str, Any]) -> dict[str, float]:
    """The entries that are truth values or numbers."""
    kinds = (bool, int, float, np.bool_, np.integer, np.floating)
    return {name: float(value) for name, value in values.items() if isinstance(value, kinds)}


def versions() -> dict[str, str]:
    """Versions of the original and of its simulator."""
    import simpler_env  # noqa: PLC0415

    return {
        "simpler_env": version("simpler_env", simpler_env),
        **{name: version(name, sys.modules.get(name)) for name in ("mani_skill2_real2sim", "sapien")},
    }


def version(name: str, module: Any) -> str:
    """The installed version and its commit, or a hash of its files without a checkout; empty if unknown."""
    from importlib import metadata  # noqa: PLC0415

    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        installed = ""
    file = getattr(module, "__file__", None)
    state = commit(file) or ("" if name == "sapien" else file_hash(file))
    return "+".join(part for part in (installed, state) if part)


def file_hash(file: str | None) -> str:
    """``files`` and seven digits that change with any Python file of the package; empty without one."""
    if file is None:
        return ""
    folder, digest = Path(file).parent, hashlib.sha256()
    for source in sorted(folder.rglob("*.py")):
        digest.update(source.relative_to(folder).as_posix().encode() + b"\0" + source.read_bytes())
    return f"files{digest.hexdigest()[:7]}"


def commit(file: str | None) -> str:
    """The commit that a file is checked out from; empty if it is not."""
    if file is None:
        return ""
    folder, name = os.path.split(os.path.abspath(file))
    try:
        tracked = ["git", "-C", folder, "ls-files", "--error-unmatch", name]
        subprocess.run(tracked, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        head = subprocess.run(
            ["git", "-C", folder, "rev-parse", "--short=7", "HEAD"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return head.stdout.decode().strip()


def answer(scene: Scene, command: dict[str, Any]) -> dict[str, Any]:
    """Do what a command says."""
    do = command["do"]
    if do == "place":
        names = ("episode", "robot", "state", "rebuild", "pictures")
        return scene.place(*(command[name] for name in names))
    if do == "step":
        return scene.step(command["action"])
    if do == "advance":
        return scene.advance()
    return scene.foreground() if do == "foreground" else scene.picture()


def reply(channel: socket.socket, message: dict[str, Any]) -> None:
    """Send a line, once what was printed before it can be read."""
    sys.stdout.flush()
    sys.stderr.flush()
    channel.sendall(json.dumps(message).encode() + b"\n")


def described(error: BaseException) -> str:
    """An error in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def main() -> None:
    """Answer commands until the other side hangs up."""
    # Files beside this one must not hide modules of the same name.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != here]
    channel = socket.socket(fileno=int(sys.argv[1]))
    memory = mmap.mmap(int(sys.argv[2]), int(sys.argv[3]))
    try:
        reply(channel, {"ok": versions()})
    except Exception as error:  # an installation breaks in many ways
        reply(channel, {"error": described(error), "during": "import"})
        return
    scene = Scene(memory)
    for line in channel.makefile("rb"):
        command = json.loads(line)
        try:
            reply(channel, {"ok": answer(scene, command)})
        except Exception as error:  # the caller decides
            during = "build" if scene.env is None else command["do"]
            reply(channel, {"error": described(error), "during": during})


if __name__ == "__main__":
    main()
