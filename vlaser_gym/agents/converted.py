"""An agent that speaks another convention than the environments of this gym, and is understood all the same."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.base import Agent, Observations
from vlaser_gym.agents.forwarding import ForwardingAgent
from vlaser_gym.conventions import CONVENTIONS, rotations
from vlaser_gym.conventions.convention import Convention
from vlaser_gym.conventions.conversion import ORIGIN, Conversion, PosesOf, Start, check, check_has_pose, read
from vlaser_gym.conventions.presets import of_robot
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.errors import InvalidConfigError

Floats = NDArray[np.float64]


def declared(agent: Any) -> Convention | None:
    """The convention that an agent says it speaks by its attribute ``convention``: a name, a mapping or itself.

    Agents that say nothing speak that of the environment that they act in.
    """
    given = getattr(agent, "convention", None)
    return None if given is None else Convention.parse(given)


def is_of_this_gym(convention: Convention) -> bool:
    """True if its actions and states are an environment's own, independent of its name and cameras."""
    ours = [
        own for own in map(of_robot, CONVENTIONS) if (own.space, own.motion) == (convention.space, convention.motion)
    ]
    return any(Conversion(convention, own).is_identity and convention.state == own.state for own in ours)


class ConvertedAgent(ForwardingAgent):
    """Another agent whose observations and actions are converted. What else that agent has, it has too.

    Everything is checked when an episode begins, before its first step.

    Args:
        agent: whose numbers follow the convention.
        convention: how it reads states and images and what its actions mean.

    Example:
        >>> import numpy as np
        >>> class Mine:
        ...     observes, convention = ("proprio",), "openvla"
        ...
        ...     def reset(self, lanes, addresses): ...
        ...
        ...     def act(self, observations, lanes):
        ...         return np.array([[[0.01, 0, 0, 0, 0, 0, 1.0]]])
        >>> agent = ConvertedAgent(Mine(), Convention.parse("openvla"))
        >>> agent.reset(np.array([0]), [Address("widowx_stack_cube")])
        >>> pose = np.array([[0.2, 0, 0.1, 1, 0, 0, 0, 0.9]], np.float32)
        >>> agent.act({"proprio": pose}, np.array([0])).tolist()
        [[[0.01, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0]]]
    """

    #: It speaks the environment's own, whatever the agent behind it says.
    convention = None

    def __init__(self, agent: Agent, convention: Convention) -> None:
        self.agent, self.spoken = agent, convention
        # Where the arm is has to be known for whatever is not said about its own axes.
        self.observes = tuple(dict.fromkeys((*agent.observes, "proprio")))
        self._lanes: dict[int, _Lane] = {}

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """See :class:`~vlaser_gym.agents.base.Agent`.

        Raises:
            InvalidConfigError: if the agent's convention does not fit the environment's.
        """
        for lane, address in zip(lanes, addresses, strict=True):
            robot, base = robot_of(address, self.agent)
            spoken = observed(self.spoken, self.agent.observes)
            self._lanes[int(lane)] = _Lane(check(spoken, of_robot(robot)), base)
        self.agent.reset(lanes, addresses)

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> Floats:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        mine = [self._lanes[int(lane)] for lane in lanes]
        proprio = np.asarray(observations["proprio"], np.float64)
        seen = {name: observations[name] for name in self.agent.observes}
        if "proprio" in seen and self.spoken.state.names:
            states = [lane.conversion.state(row[None], lane.base)[0] for lane, row in zip(mine, proprio, strict=True)]
            seen["proprio"] = np.stack(states).astype(np.float32)
        for view in self.spoken.views:
            if view.name in seen and view.height:
                seen[view.name] = resized(seen[view.name], view.height, view.width)
        chunk = np.asarray(self.agent.act(seen, lanes), np.float64)
        answers = zip(mine, chunk, proprio, strict=True)
        return np.stack([lane.converted(actions[None], row[None])[0] for lane, actions, row in answers])

    def describe(self) -> dict[str, Any]:
        """See :class:`~vlaser_gym.agents.base.Agent`; and what the agent's numbers mean."""
        told: Mapping[str, Any] = getattr(self.agent, "describe", dict)()
        return {**told, "convention": self.spoken.described()}


class _Lane:
    """One environment's conversion, and what its controller was told last."""

    def __init__(self, conversion: Conversion, base: Floats) -> None:
        self.conversion, self.base = conversion, base
        self._aim: Floats | None = None
        self._openness: Floats | None = None

    def converted(self, actions: Floats, proprio: Floats) -> Floats:
        """A chunk ``[1, H, size]`` in the environment's numbers."""
        start = Start.of(proprio, self.base)
        if not self.conversion.steps:
            return self.conversion.actions(actions, start)
        chained = self.conversion.target.motion == "chained"
        start = Start(
            start.pose if self._aim is None or not chained else self._aim,
            start.openness if self._openness is None else self._openness,
            self.base,
        )
        out = self.conversion.actions(actions, start)
        # The next chunk of a chained motion begins where this one means to end.
        moves = read(out, self.conversion.target)
        reached = PosesOf(self.conversion.target)(moves, start)
        attitude = rotations.quaternion_from_matrix(reached.rotation[:, -1])
        self._aim = np.concatenate([reached.translation[:, -1], attitude], -1)
        absolute = self.conversion.target.gripper.mode == "absolute"
        self._openness = np.clip(moves.gripper[:, -1] if absolute else start.openness + moves.gripper.sum(1), 0.0, 1.0)
        return out


class ConvertedClient(ForwardingAgent):
    """The other way round: an agent of this gym for clients whose numbers follow another convention.

    It reads their states and answers in their actions.

    Args:
        agent: of this gym.
        convention: the clients'.
        robot: whose numbers the agent's are; ``None``: the agent's own.
    """

    def __init__(self, agent: Agent, convention: Convention, robot: str | None = None) -> None:
        self.agent, self.convention, self.observes = agent, convention, agent.observes
        robot = robot or getattr(agent, "robot", None)
        if robot is None:
            raise InvalidConfigError(
                "Clients of another convention need to know whose numbers the agent's are: give robot=widowx or "
                "robot=google_robot."
            )
        # Rates and images are the client's own business.
        ours = Convention.parse({"preset": of_robot(robot).name, "views": [], "control_hz": None})
        self.conversion = check(ours, observed(convention, agent.observes))
        if "proprio" in agent.observes:
            check_has_pose(convention)

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        self.agent.reset(lanes, addresses)

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> Floats:
        """See :class:`~vlaser_gym.agents.base.Agent`; states and actions are the client's."""
        seen = dict(observations)
        if "proprio" in seen:
            seen["proprio"] = self.conversion.state(seen["proprio"]).astype(np.float32)
        chunk = np.asarray(self.agent.act(seen, lanes), np.float64)
        return self.conversion.actions(chunk, self._start(seen, len(chunk)))

    def _start(self, seen: Observations, count: int) -> Start:
        if "proprio" in seen:
            return Start.of(seen["proprio"])
        if self.conversion.steps:
            raise InvalidConfigError(
                f"Actions of {self.conversion.source.name} become those of {self.convention.name} only where the arm's "
                "pose is known: serve an agent that observes proprio."
            )
        return Start(np.tile(ORIGIN, (count, 1)), np.ones(count))


def observed(convention: Convention, observes: Sequence[str]) -> Convention:
    """A convention with the views and the state that an agent reads."""
    views = [view for view in convention.views if view.name in observes]
    changes: dict[str, Any] = {"views": views}
    if "proprio" not in observes:
        changes["state"] = {"names": ()}
    return Convention.parse({**convention.described(), **changes})


def robot_of(address: Address, agent: Any) -> tuple[str, Floats]:
    """Robot of an episode, and the pose of its base in the world ``[7]``.

    Raises:
        InvalidConfigError: for an episode of no task, and an agent that does not say whose it is.
    """
    if address.task in task_names():
        setup = get_setup(get_task(address.task).robot_setup)
        return setup.robot.name, np.array(setup.base_pose)
    robot = getattr(agent, "robot", None)
    if robot is None:
        raise InvalidConfigError(
            f"An agent of another convention must know its robot; {address.task!r} is no task: send the episode's "
            "address, or give the agent a robot."
        )
    return str(robot), np.array(ORIGIN)


def resized(images: Any, height: int, width: int) -> NDArray[np.uint8]:
    """Images ``[N, h, w, 3]`` of another size, by area averaging."""
    array = np.asarray(images)
    if array.shape[1:3] == (height, width):
        return array
    return np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in array])


def looks_like_ours(proprio: NDArray[Any]) -> bool:
    """True if eight numbers can be this gym's state: a unit quaternion in the middle, openness at the end."""
    length = math.hypot(*proprio[3:7].tolist())
    return abs(length - 1) < QUATERNION_TOLERANCE and LEAST_OPENNESS <= float(proprio[7]) <= MOST_OPENNESS


#: Of eight numbers that are taken for this gym's state: how far the quaternion's length may be from 1, and what
#: openness may be (fingers pressed together are slightly below 0).
QUATERNION_TOLERANCE, LEAST_OPENNESS, MOST_OPENNESS = 1e-2, -0.3, 1.3
