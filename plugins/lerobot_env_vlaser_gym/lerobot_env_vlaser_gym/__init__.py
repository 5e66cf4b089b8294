"""vlaser-gym's tasks as an environment of LeRobot (written against 0.6.1, ``lerobot/envs/configs.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from lerobot.configs.types import FeatureType, PolicyFeature
from lerobot.envs.configs import EnvConfig
from lerobot.envs.utils import freeze_after_episode_end

from vlaser_gym.agents.converted import resized
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.single import SceneEnv
from vlaser_gym.envs.tasks import by_robot, get_task, resolve

MAIN, STATE = "observation.images.main", "observation.state"


class Scene(gymnasium.Env[Any, Any]):
    """A task with LeRobot's words for what is seen; ``reset(seed=K)`` begins layout K of the grid, then its trials.

    Args:
        task: its name.
        success: ``last`` says so at the end of an episode alone, ``any`` at every step.
        image_size: side of the images (pixels), as ``image_size`` of ``python -m vlaser_gym.collect``; ``None``: the
            camera's own height and width.
        options: of :class:`vlaser_gym.envs.single.SceneEnv`.
    """

    def __init__(self, task: str, success: str = "last", image_size: int | None = None, **options: Any) -> None:
        if success not in ("last", "any"):
            raise ValueError(f"success is last or any; got {success!r}.")
        self.scene = SceneEnv(task, observe=("image", "proprio", "instruction"), **options)
        self.task, self.success, self._side = task, success, image_size
        self.task_description = ""
        # Whole: LeRobot's recordings take no other.
        self.metadata = {**self.scene.metadata, "render_fps": round(self.scene.metadata["render_fps"])}
        self.render_mode = "rgb_array"
        self._layouts = get_task(task).num_layouts
        self._max_episode_steps = int(options.get("max_episode_steps") or get_task(task).max_steps)
        self._next = 0
        seen = self.scene.observation_space
        height, width = _size(seen["image"].shape[:2], image_size)
        images = spaces.Dict({"main": spaces.Box(0, 255, (height, width, 3), np.uint8)})
        self.observation_space = spaces.Dict({"pixels": images, "agent_pos": seen["proprio"]})
        self.action_space = self.scene.action_space

    def reset(self, *, seed: int | None = None, options: Mapping[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        """Begin the episode of that number; without one, the one after the last."""
        del options
        number = self._next if seed is None else seed
        self._next = number + 1
        trial, layout = divmod(number, self._layouts)
        seen, info = self.scene.reset(options={"layout": f"grid:{layout}", "trial": trial})
        return self._seen(seen), {**info, "is_success": False}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        """One action, in this gym's numbers."""
        seen, reward, ended, cut, info = self.scene.step(np.asarray(action, np.float64))
        counts = bool(info["success"]) and (self.success == "any" or ended or cut)
        return self._seen(seen), reward, ended, cut, {**info, "is_success": counts}

    def render(self) -> Any:
        """The robot's camera."""
        return self.scene.render()

    def close(self) -> None:
        """Stop the engine."""
        self.scene.close()

    def _seen(self, observation: Mapping[str, Any]) -> dict[str, Any]:
        self.task_description = observation["instruction"]
        image = observation["image"]
        (image,) = resized(image[None], *_size(image.shape[:2], self._side))
        return {"pixels": {"main": image}, "agent_pos": observation["proprio"]}


def _size(camera: tuple[int, int], side: int | None) -> tuple[int, int]:
    """Height and width of the images (pixels)."""
    return camera if side is None else (side, side)


@EnvConfig.register_subclass("vlaser_gym")
@dataclass
class VlaserGymEnv(EnvConfig):
    """``--env.type=vlaser_gym``.

    Attributes:
        task: a task, several with commas between them, or a preset; one robot's.
        fps: control steps per second; the robot's own, whatever is given.
        success: ``last`` or ``any``; see :class:`Scene`.
        terminate_on_success: end episodes at their first success.
        engine, look: which simulator, and its look.
        image_size: see :class:`Scene`; that of the policy's data set. LeRobot resizes nothing by itself.
        max_episode_steps: control steps after which an episode ends; ``None``: the task's own limit.
    """

    task: str | None = "widowx_stack_cube"
    fps: int = 5
    success: str = "last"
    terminate_on_success: bool = False
    engine: str = "mujoco"
    look: str | None = None
    image_size: int | None = None
    max_episode_steps: int | None = None
    features: dict[str, PolicyFeature] = field(default_factory=dict)
    features_map: dict[str, str] = field(default_factory=lambda: {"action": "action", "agent_pos": STATE, MAIN: MAIN})

    def __post_init__(self) -> None:
        robots = by_robot(get_task(name) for name in self.tasks)
        if len(robots) > 1:
            raise ValueError(f"--env.task names tasks of one robot; got {', '.join(robots)}.")
        setup = get_setup(get_task(self.tasks[0]).robot_setup)
        camera = setup.cameras[setup.image_cameras["image"]]
        self.fps = round(setup.control_hz)
        height, width = _size((camera.height, camera.width), self.image_size)
        # Named as columns of a data set are, in which LeRobot records what it sees (eval.recording).
        self.features = {
            "action": PolicyFeature(type=FeatureType.ACTION, shape=(7,)),
            "agent_pos": PolicyFeature(type=FeatureType.STATE, shape=(8,)),
            MAIN: PolicyFeature(type=FeatureType.VISUAL, shape=(height, width, 3)),
        }

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks."""
        return resolve([name.strip() for name in str(self.task).split(",")])

    @property
    def gym_kwargs(self) -> dict[str, Any]:
        """Keyword arguments of :class:`Scene`."""
        return {
            "success": self.success,
            "terminate_on_success": self.terminate_on_success,
            "engine": self.engine,
            "look": self.look,
            "image_size": self.image_size,
            "max_episode_steps": self.max_episode_steps,
        }

    def create_envs(self, n_envs: int, use_async_envs: bool = False) -> dict[str, dict[int, Any]]:
        """A vector environment for each task; in it, who has ended waits for the others."""
        kind: Any = SyncVectorEnv
        options: dict[str, Any] = {"autoreset_mode": AutoresetMode.SAME_STEP}
        if use_async_envs and n_envs > 1:
            kind, options = AsyncVectorEnv, {**options, "context": "forkserver"}
        made = {
            number: kind([freeze_after_episode_end(partial(Scene, task, **self.gym_kwargs))] * n_envs, **options)
            for number, task in enumerate(self.tasks)
        }
        return {"vlaser_gym": made}
