"""The doctor's findings on an agent: both conventions, the conversion between them, and a probe motion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from vlaser_gym.agents import Agent, make_agent
from vlaser_gym.agents.converted import declared, observed
from vlaser_gym.agents.vlaser.shipped import with_checkpoint
from vlaser_gym.commands.finding import Finding
from vlaser_gym.conventions import Convention, Conversion, Start, of_robot
from vlaser_gym.conventions.conversion import problems
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError

#: Each probe: so many control steps of so much along one axis (m).
_STEPS, _LENGTH = 4, 0.01
#: Share of a probe that the arm must have covered (the Google Robot forgets what a step does not reach), and the
#: largest motion across, as a share of that along.
_COVERED, _ACROSS = 0.25, 0.5
#: Openness that a closed gripper is below and an open one above.
_HALF = 0.5
_AXES = ("x", "y", "z")


def examine_agent(config: Mapping[str, Any], robot: str) -> Iterator[Finding]:
    """An agent's convention beside the environment's, and whether the arm does what its numbers mean."""
    environment = of_robot(robot)
    name = str(config.get("name", "agent"))
    try:
        agent = make_agent(with_checkpoint(config, None, robot))
        convention = _convention(agent, environment)
    except GymError as error:
        yield Finding("agent", False, str(error))
        return
    yield Finding(f"conventions of {name}", True, "; ".join(convention.lines()))
    yield Finding(f"conventions of {robot}", True, "; ".join(environment.lines()))
    if found := problems(convention, environment):
        for problem in found:
            yield Finding("conversion", False, problem, "See docs/conventions.md.")
        return
    conversion = Conversion(convention, environment)
    yield Finding("conversion", True, "; ".join(conversion.lines()) or "none is needed")
    yield _flown(robot, conversion)


def _convention(agent: Agent, environment: Convention) -> Convention:
    """The agent's own; one that says nothing speaks the environment's."""
    spoken = getattr(agent, "spoken", None) or declared(agent)
    return observed(environment if spoken is None else spoken, agent.observes)


def _flown(robot: str, conversion: Conversion) -> Finding:
    """A motion along each axis and the gripper, said in the agent's numbers and measured in the scene."""
    name = "probe motion"
    task = next(task for task in task_names() if get_setup(get_task(task).robot_setup).robot.name == robot)
    try:
        env = SceneVectorEnv(task, observe=("proprio",), autoreset_mode=AutoresetMode.DISABLED)
    except GymError as error:
        return Finding(name, False, str(error))
    with closing(env):
        wrong, told = [], []
        for axis in range(3):
            moved = _moved(env, conversion, axis)[:3]
            along, across = float(moved[axis]), float(np.linalg.norm(np.delete(moved, axis)))
            told.append(f"{_AXES[axis]} {1000 * along:+.0f} mm")
            if along < _COVERED * _STEPS * _LENGTH or across > _ACROSS * along:
                wrong.append(f"{1000 * _STEPS * _LENGTH:.0f} mm along {_AXES[axis]} moved the tool {_mm(moved)}")
        closed, opened = (_openness(env, conversion, openness) for openness in (0.0, 1.0))
        told.append(f"gripper {closed:.2f} to {opened:.2f}")
        if not closed < _HALF < opened:
            wrong.append(f"closing left the gripper {closed:.2f} open and opening {opened:.2f}")
    if wrong:
        return Finding(
            name, False, "; ".join(wrong), "The conversion or the engine does not do what it says: please report this."
        )
    return Finding(name, True, f"40 mm along each axis, closing and opening, on {task}: {', '.join(told)}")


def _moved(env: SceneVectorEnv, conversion: Conversion, axis: int) -> NDArray[np.float64]:
    """The TCP motion of a probe along an axis, ``[3]`` m in the base frame."""
    before = _reset(env)
    wish = np.zeros((1, _STEPS, 7))
    wish[..., axis] = _LENGTH
    wish[..., 6] = 1.0 if conversion.target.gripper.mode == "absolute" else 0.0
    return np.asarray(_execute(env, conversion, wish, before)[:3] - before[0, :3])


def _openness(env: SceneVectorEnv, conversion: Conversion, openness: float) -> float:
    """The openness of the gripper after a command to open or close."""
    before = _reset(env)
    gripper = conversion.target.gripper
    goal = openness if gripper.mode == "absolute" else (1.0 if openness else -1.0)
    wish = np.zeros((1, 2 * _STEPS, 7))
    wish[..., 6] = gripper.numbers(np.array(goal))
    if gripper.mode == "relative":
        wish[:, 1:, 6] = 0.0
    return float(_execute(env, conversion, wish, before)[7])


def _reset(env: SceneVectorEnv) -> NDArray[np.float64]:
    return np.asarray(env.reset(options={"layout": 0})[0]["proprio"], np.float64)


def _execute(
    env: SceneVectorEnv, conversion: Conversion, wish: NDArray[np.float64], proprio: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The state after a wish that went through the agent's numbers and back."""
    start = Start.of(proprio, np.array(get_setup(env.tasks[0].robot_setup).base_pose))
    said = conversion.inverse.actions(wish, start)
    observation, *_ = env.step_chunk(conversion.actions(said, start))
    return np.asarray(observation["proprio"][0], np.float64)


def _mm(moved: NDArray[np.float64]) -> str:
    return "(" + ", ".join(f"{1000 * value:+.0f}" for value in moved) + ") mm"
