"""This gym's tasks as a benchmark of vla-eval, for its configs: ``benchmark: vlaser_gym.evaluation.vla_eval:Scenes``.

Written against vla-eval 0.8.0 (``vla_eval/benchmarks/base.py``), which has to be installed beside this gym.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from vlaser_gym.agents.converted import robot_of
from vlaser_gym.agents.languages import nested, vla_eval_keys
from vlaser_gym.conventions import Convention, Conversion, Start, of_robot
from vlaser_gym.conventions.conversion import ORIGIN, check
from vlaser_gym.conventions.vla_eval import action_spec, observation_spec
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.single import SceneEnv
from vlaser_gym.envs.tasks import by_robot, get_task, resolve
from vlaser_gym.errors import InvalidConfigError

try:
    from vla_eval.benchmarks.base import StepBenchmark, StepResult
    from vla_eval.specs import DimSpec
except ImportError as error:
    raise InvalidConfigError(
        f"vlaser_gym.evaluation.vla_eval is loaded by vla-eval, which is not installed here ({error}): "
        "pip install vla-eval."
    ) from error


class Scenes(StepBenchmark):  # type: ignore[misc]
    """Tasks, each episode with an address: number K of a task is layout K of its grid, then their next trials.

    Args:
        task: a task, several, or a preset such as ``widowx``; one robot's.
        convention: what the model's states and actions mean, if not what this gym's do (docs/conventions.md).
        success: ``last`` for success at the last step, SimplerEnv's rule; ``any`` for at any.
        engine, look: which simulator, and its look.
        send_image: the main camera's image, ``images/primary``.
        send_state: the arm's state, ``states``; a server that wants it says so.
        send_wrist_image: the image of the wrist's camera, ``images/wrist``.
        send_privileged: the simulator's own state, ``privileged``, for scripted experts.
        options: further ones of :class:`~vlaser_gym.envs.vector.SceneVectorEnv`.
    """

    render_backends = frozenset({"gpu", "cpu"})

    @classmethod
    def configure_render(cls, mode: str) -> dict[str, str]:
        """Nothing to configure: both ways of rendering are EGL, which finds what there is."""
        del mode
        return {}

    def __init__(
        self,
        task: str | list[str] = "widowx",
        convention: str | Mapping[str, Any] | None = None,
        success: str = "last",
        engine: str = "mujoco",
        look: str | None = None,
        send_image: bool = True,
        send_state: bool = False,
        send_wrist_image: bool = False,
        send_privileged: bool = False,
        **options: Any,
    ) -> None:
        super().__init__()
        if success not in ("last", "any"):
            raise InvalidConfigError(f"success is last or any; got {success!r}.")
        self.tasks, self.success = resolve(task), success
        self._env: SceneEnv | None = None
        robots = list(by_robot(get_task(name) for name in self.tasks))
        if len(robots) > 1:
            raise InvalidConfigError(f"A benchmark has tasks of one robot; got {', '.join(robots)}: make one of each.")
        self.robot = of_robot(robots[0])
        self.spoken = self.robot if convention is None else Convention.parse(convention)
        self._options = {"engine": engine, "look": look, **options}
        sent = {
            "image": send_image,
            "wrist_image": send_wrist_image,
            "proprio": send_state,
            "state": send_privileged,
            "instruction": True,
        }
        self.sends = tuple(name for name, is_sent in sent.items() if is_sent)
        self.conversion: Conversion = check(self.spoken, self.robot)
        self._base = np.array(ORIGIN)
        self._seen: dict[str, Any] = {}
        self._succeeded = False

    def get_tasks(self) -> list[dict[str, Any]]:
        """Name, robot (``suite``) and number of layouts."""
        return [{"name": name, "suite": self.robot.name, "layouts": get_task(name).num_layouts} for name in self.tasks]

    def get_metadata(self) -> dict[str, Any]:
        """The longest task's steps, and what the numbers mean."""
        longest = max(get_task(name).max_steps for name in self.tasks)
        return {"max_steps": longest, "convention": self.spoken.described(), "success": self.success}

    def get_metric_keys(self) -> dict[str, str]:
        """Success by the rule that was chosen, and at any step."""
        return {"success": "mean", "success_any": "mean"}

    def get_action_spec(self) -> dict[str, DimSpec]:
        """See vla-eval's ``Benchmark``."""
        return _specs(action_spec(self.spoken))

    def get_observation_spec(self) -> dict[str, DimSpec]:
        """See vla-eval's ``Benchmark``."""
        return _specs(observation_spec(self.sends, self.spoken))

    def reset(self, task: dict[str, Any]) -> Any:
        """Begin an episode, and tell the server its address with the task."""
        trial, layout = divmod(int(task.get("episode_idx", 0)), get_task(task["name"]).num_layouts)
        address = Address(task["name"], layout=f"grid:{layout}", trial=trial)
        task["address"] = str(address)
        self._base, self._succeeded = robot_of(address, None)[1], False
        self._seen, _ = self._scene(address.task).reset(options={"layout": address.layout, "trial": trial})
        self._recorder.record_video(self._seen.get("image"))
        return self._seen

    def step(self, action: Mapping[str, Any]) -> StepResult:
        """One action, ``actions`` or ``action``, in the convention."""
        given = np.asarray(action.get("actions", action.get("action")), np.float64)
        start = Start.of(self._seen["proprio"][None], self._base)
        assert self._env is not None
        self._seen, reward, ended, cut, info = self._env.step(self.conversion.actions(given[None, None], start)[0, 0])
        self._succeeded = self._succeeded or bool(info["success"])
        self._recorder.record_step(reward=float(reward), success=bool(info["success"]), truncated=bool(cut))
        self._recorder.record_video(self._seen.get("image"))
        return StepResult(self._seen, float(reward), bool(ended or cut), info)

    def make_obs(self, raw_obs: Mapping[str, Any], task: dict[str, Any]) -> dict[str, Any]:
        """The observation in vla-eval's words."""
        seen = {name: raw_obs[name] for name in self.sends}
        if "proprio" in seen and self.spoken.state.names:
            seen["proprio"] = self.conversion.state(seen["proprio"][None], self._base)[0].astype(np.float32)
        return {**nested(seen, vla_eval_keys(self.sends)), "task_name": task["name"]}

    def get_step_result(self, step_result: StepResult) -> dict[str, Any]:
        """Success, at the last step or at any; and at any."""
        last = bool(step_result.info.get("success", False))
        return {"success": last if self.success == "last" else self._succeeded, "success_any": self._succeeded}

    def cleanup(self) -> None:
        """Stop the engine."""
        if self._env is not None:
            self._env.close()
            self._env = None

    def _scene(self, task: str) -> SceneEnv:
        """The environment of a task; one at a time."""
        if self._env is None or self._env.lanes.tasks[0].name != task:
            self.cleanup()
            self._env = SceneEnv(task, observe=tuple(dict.fromkeys((*self.sends, "proprio"))), **self._options)
        return self._env


def _specs(told: Mapping[str, Mapping[str, Any]]) -> dict[str, DimSpec]:
    return {name: DimSpec.from_dict(dict(entry)) for name, entry in told.items()}
