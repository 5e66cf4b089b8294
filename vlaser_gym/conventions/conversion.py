"""Conversion of one convention's numbers into another's, in small steps, each with its inverse.

Actions are read into :class:`Moves` (metres, rotation matrices, openness), changed by the steps that the two
conventions need, and written again. Poses and deltas need to know where the arm is: :class:`Start`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.conventions import rotations
from vlaser_gym.conventions.convention import (
    PAD,
    POSITION,
    Convention,
    State,
    rotation_names,
    rotation_size,
)
from vlaser_gym.errors import InvalidConfigError

Floats = NDArray[np.float64]

#: Largest share by which two control rates may differ.
RATE_TOLERANCE = 0.01
#: A pose that nothing moves, as position and quaternion w, x, y, z.
ORIGIN = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Start:
    """The pose of the arm at the start of a chunk.

    Attributes:
        pose: ``[N, 7]``, of the TCP in the base frame (m, quaternion w, x, y, z): what was measured, or of a chained
            target where its controller aims.
        openness: ``[N]``, 0 closed to 1 open: measured, or as it was commanded last.
        base: ``[7]``, pose of the robot's base in the world.
    """

    pose: Floats
    openness: Floats
    base: Floats = field(default_factory=lambda: np.array(ORIGIN))

    @classmethod
    def of(cls, proprio: ArrayLike, base: ArrayLike = ORIGIN) -> Start:
        """Convert this gym's proprioception ``[N, 8]``."""
        values = np.asarray(proprio, np.float64)
        return cls(values[:, :7], values[:, 7], np.asarray(base, np.float64))


@dataclass(frozen=True)
class Moves:
    """Action chunks of N environments.

    Attributes:
        translation: ``[N, H, 3]``, m.
        rotation: ``[N, H, 3, 3]``.
        gripper: ``[N, H]``, openness from 0 to 1, or its change.
    """

    translation: Floats
    rotation: Floats
    gripper: Floats


Step = Callable[[Moves, Start], Moves]


@dataclass(frozen=True)
class Conversion:
    """Between two conventions that have one.

    Attributes:
        source, target: the conventions.

    Raises:
        InvalidConfigError: if there is none, as joints are no poses.

    Example:
        >>> from vlaser_gym.conventions.presets import get_preset
        >>> conversion = Conversion(get_preset("openvla"), get_preset("simpler_widowx"))
        >>> start = Start.of(np.array([[0.2, 0, 0.1, 1, 0, 0, 0, 1.0]]))
        >>> conversion.actions(np.array([[[0.01, 0, 0, 0, 0, 0.1, 0]]]), start).round(6).tolist()
        [[[0.01, 0.0, 0.0, 0.0, 0.0, 0.1, -1.0]]]
    """

    source: Convention
    target: Convention

    def __post_init__(self) -> None:
        if problem := space_problem(self.source, self.target):
            raise InvalidConfigError(problem)

    @property
    def inverse(self) -> Conversion:
        """The way back."""
        return Conversion(self.target, self.source)

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps of the conversion, in order."""
        steps: list[Step] = []
        if not _same_poses(self.source, self.target):
            steps += [PosesOf(self.source), MotionsOf(self.target)]
        if self.source.gripper.mode != self.target.gripper.mode:
            steps.append(Accumulated() if self.source.gripper.mode == "relative" else Differences())
        return tuple(steps)

    @property
    def is_identity(self) -> bool:
        """True if actions stay unchanged."""
        return not self.steps and _written_alike(self.source, self.target)

    def actions(self, actions: ArrayLike, start: Start) -> Floats:
        """Chunks ``[N, H, size]`` of the source as chunks of the target.

        Raises:
            InvalidConfigError: if they have not the source's size.
        """
        array = np.asarray(actions, np.float64)
        if array.ndim != 3 or array.shape[-1] != self.source.size:
            raise InvalidConfigError(
                f"Actions of the convention {self.source.name} should be [N, H, {self.source.size}]; got "
                f"{list(array.shape)}: name the convention that they follow, or change the agent."
            )
        if self.is_identity:
            return array
        moves = read(array, self.source)
        for step in self.steps:
            moves = step(moves, start)
        return write(moves, self.target)

    def state(self, values: ArrayLike, base: ArrayLike = ORIGIN) -> Floats:
        """States ``[N, D]`` of the target (an environment) as states of the source (who reads them)."""
        pose, openness = read_state(values, self.target, base)
        return write_state(pose, openness, self.source, base)

    def lines(self) -> list[str]:
        """The steps in words, a line each; empty for the identity."""
        source, target = self.source, self.target
        told = []
        if source.low:
            told.append(
                f"translation and rotation are multiplied: 1 is {source.high[0]:g} m and {source.high[3]:g} rad"
            )
        if target.low:
            told.append(f"the arm's numbers are normalised: {target.high[0]:g} m and {target.high[3]:g} rad are 1")
        if source.rotation != target.rotation:
            told.append(f"rotations change from {source.rotation} to {target.rotation}")
        if not _same_poses(source, target):
            told.append(
                f"motions change from {source.motion} in the {source.frame} frame to {target.motion} in the "
                f"{target.frame} frame{'' if source.tool == target.tool else ', and between two tool frames'}"
            )
        if source.gripper != target.gripper:
            told.append(f"the gripper changes from {source.gripper.words} to {target.gripper.words}")
        if source.state.names and source.state != target.state:
            told.append(f"the state is given as {' '.join(source.state.names)} ({source.state.frame} frame)")
        told += [f"{v.name} is resized to {v.width} x {v.height}" for v in source.views if _resized(v.name, self)]
        return told


def _resized(name: str, conversion: Conversion) -> bool:
    sizes = [
        {(v.height, v.width) for v in side.views if v.name == name and v.height}
        for side in (conversion.source, conversion.target)
    ]
    return bool(sizes[0]) and sizes[0] != sizes[1]


def space_problem(source: Convention, target: Convention) -> str:
    """The reason why actions cannot be converted between two conventions; empty if they can."""
    if source.space == target.space == "pose":
        return ""
    if (source.space, source.joints) == (target.space, target.joints) and source.joint_unit == target.joint_unit:
        return "" if _written_alike(source, target) else _JOINTS.format(source=source.name, target=target.name)
    return (
        f"{target.name} expects {_actions_of(target)}; {source.name} gives {_actions_of(source)}, and nothing here "
        "knows that arm's kinematics: convert them where the policy is served, or choose a policy for this robot."
    )


_JOINTS = "{source} and {target} give joints in different layouts; convert them where the policy is served."


def _actions_of(convention: Convention) -> str:
    if convention.space == "pose":
        return f"{convention.motion} motions of the tool"
    return f"{convention.space.replace('_', ' ')} of {len(convention.joints)} joints"


def problems(agent: Convention, environment: Convention) -> list[str]:
    """The obstacles between an agent and an environment, a sentence each: expected, declared, remedy."""
    found = [space_problem(agent, environment)]
    if agent.state.unknown:
        found.append(
            f"{environment.name} has a state of {' '.join(environment.state.names)}; {agent.name} reads "
            f"{', '.join(agent.state.unknown)}: give it a convention whose state this arm has, or do not observe it."
        )
    offered = {view.name for view in environment.views}
    missing = [view.name for view in agent.views if view.name not in offered]
    if missing:
        found.append(
            f"{environment.name} shows {', '.join(sorted(offered))}; {agent.name} looks at {', '.join(missing)}: "
            "observe that camera (docs/robots.md), or change the views of its convention."
        )
    rates = (agent.control_hz, environment.control_hz)
    if None not in rates and abs(float(rates[0] or 0) / float(rates[1] or 1) - 1) > RATE_TOLERANCE:
        found.append(
            f"{environment.name} takes {rates[1]:g} actions per second; {agent.name} gives {rates[0]:g}, so that each "
            f"would last {float(rates[0] or 0) / float(rates[1] or 1):.2g} times as long: if the policy was trained at "
            f"this rate, say control_hz={rates[1]:g} in its convention."
        )
    return [problem for problem in found if problem]


def check(agent: Convention, environment: Convention) -> Conversion:
    """The conversion of an agent's actions to an environment's.

    Raises:
        InvalidConfigError: with the first thing that does not fit.
    """
    if found := problems(agent, environment):
        raise InvalidConfigError(found[0])
    return Conversion(agent, environment)


# ---------------------------------------------------------------------- reading and writing


def read(actions: Floats, convention: Convention) -> Moves:
    """Numbers ``[N, H, size]`` as moves."""
    arm = unnormalized(actions[..., : convention.arm], convention)
    return Moves(
        arm[..., :3],
        matrices(arm[..., 3:], convention.rotation),
        convention.gripper.openness(actions[..., convention.arm]),
    )


def write(moves: Moves, convention: Convention) -> Floats:
    """Moves as numbers ``[N, H, size]``."""
    arm = np.concatenate([moves.translation, turned(moves.rotation, convention.rotation)], -1)
    grip = convention.gripper.numbers(moves.gripper)[..., None]
    fill = np.zeros((*arm.shape[:-1], convention.size - convention.arm - 1))
    return np.concatenate([normalized(arm, convention), grip, fill], -1)


def unnormalized(arm: Floats, convention: Convention) -> Floats:
    """Numbers of the arm in metres and radians."""
    if not convention.low:
        return np.asarray(arm, np.float64)
    low, high = np.array(convention.low), np.array(convention.high)
    return np.asarray(low + (arm + 1) / 2 * (high - low))


def normalized(arm: Floats, convention: Convention) -> Floats:
    """The inverse of :func:`unnormalized`."""
    if not convention.low:
        return arm
    low, high = np.array(convention.low), np.array(convention.high)
    return np.asarray(2 * (arm - low) / (high - low) - 1)


def matrices(values: ArrayLike, kind: str) -> Floats:
    """Rotations of a kind, ``[..., k]``, as matrices ``[..., 3, 3]``."""
    array = np.asarray(values, np.float64)
    if kind in _READERS:
        return _READERS[kind](array)
    rotation_size(kind)
    flat = _scipy().from_euler(kind.removeprefix("euler:"), array.reshape(-1, 3)).as_matrix()
    return np.asarray(flat.reshape(*array.shape[:-1], 3, 3), np.float64)


def _orthonormal(first: Floats, second: Floats) -> Floats:
    """The rotation whose first two columns are nearest to these by Gram and Schmidt."""
    x = first / np.linalg.norm(first, axis=-1, keepdims=True)
    rest = second - (x * second).sum(-1, keepdims=True) * x
    y = rest / np.linalg.norm(rest, axis=-1, keepdims=True)
    return np.stack([x, y, np.cross(x, y)], -1)


_READERS: Mapping[str, Callable[[Floats], Floats]] = {
    "axis_angle": rotations.matrix_from_axis_angle,
    "quaternion_wxyz": rotations.matrix_from_quaternion,
    "quaternion_xyzw": lambda array: rotations.matrix_from_quaternion(np.roll(array, 1, axis=-1)),
    "rot6d": lambda array: _orthonormal(array[..., :3], array[..., 3:]),
    "rot6d_rows": lambda array: _orthonormal(array[..., ::2], array[..., 1::2]),
    "euler:xyz": rotations.matrix_from_euler,
}


def turned(matrix: Floats, kind: str) -> Floats:
    """The inverse of :func:`matrices`."""
    if kind in _WRITERS:
        return np.asarray(_WRITERS[kind](matrix), np.float64)
    rotation_size(kind)
    flat = _scipy().from_matrix(matrix.reshape(-1, 3, 3)).as_euler(kind.removeprefix("euler:"))
    return np.asarray(flat.reshape(*matrix.shape[:-2], 3), np.float64)


_WRITERS: Mapping[str, Callable[[Floats], Floats]] = {
    "axis_angle": rotations.axis_angle_from_matrix,
    "quaternion_wxyz": rotations.quaternion_from_matrix,
    "quaternion_xyzw": lambda matrix: np.roll(rotations.quaternion_from_matrix(matrix), -1, axis=-1),
    "rot6d": lambda matrix: np.concatenate([matrix[..., 0], matrix[..., 1]], -1),
    "rot6d_rows": lambda matrix: matrix[..., :2].reshape(*matrix.shape[:-2], 6),
    "euler:xyz": rotations.euler_from_matrix,
}


def _scipy() -> Any:
    """SciPy's rotations, for the rarer orders of axes; they take a moment to import."""
    from scipy.spatial.transform import Rotation  # noqa: PLC0415

    return Rotation


# ---------------------------------------------------------------------- steps


@dataclass(frozen=True)
class PosesOf:
    """Moves of a convention as poses of the TCP in the base frame, each built on the one before."""

    convention: Convention

    def __call__(self, moves: Moves, start: Start) -> Moves:
        """See :data:`Step`."""
        convention = self.convention
        tool, base = _tool(convention), _Frame.of(start.base)
        if convention.motion == "absolute":
            if convention.frame == "world":
                moves = base.inside(moves)
            return replace(moves, rotation=moves.rotation @ tool.T)
        position, attitude = start.pose[:, :3], rotations.matrix_from_quaternion(start.pose[:, 3:])
        places, turns = np.empty_like(moves.translation), np.empty_like(moves.rotation)
        for h in range(moves.translation.shape[1]):
            by, turn = moves.translation[:, h], moves.rotation[:, h]
            # Of a motion in another frame: the axes of that frame, seen from the base.
            axes = attitude @ tool if convention.frame == "tool" else base.axes(convention.frame)
            position = position + rotations.rotate(axes, by)
            attitude = axes @ turn @ np.swapaxes(axes, -1, -2) @ attitude
            places[:, h], turns[:, h] = position, attitude
        return replace(moves, translation=places, rotation=turns)


@dataclass(frozen=True)
class MotionsOf:
    """The inverse of :class:`PosesOf`: poses of the TCP in the base frame as moves of a convention."""

    convention: Convention

    def __call__(self, moves: Moves, start: Start) -> Moves:
        """See :data:`Step`."""
        convention = self.convention
        tool, base = _tool(convention), _Frame.of(start.base)
        if convention.motion == "absolute":
            moves = replace(moves, rotation=moves.rotation @ tool)
            return base.outside(moves) if convention.frame == "world" else moves
        attitudes = np.concatenate([rotations.matrix_from_quaternion(start.pose[:, None, 3:]), moves.rotation], 1)
        places = np.concatenate([start.pose[:, None, :3], moves.translation], 1)
        before, after = attitudes[:, :-1], attitudes[:, 1:]
        axes = before @ tool if convention.frame == "tool" else base.axes(convention.frame)
        back = np.swapaxes(axes, -1, -2)
        turn = back @ after @ np.swapaxes(before, -1, -2) @ axes
        return replace(moves, translation=rotations.rotate(back, np.diff(places, axis=1)), rotation=turn)


@dataclass(frozen=True)
class Accumulated:
    """Changes of a gripper's openness as the openness itself, between 0 and 1."""

    def __call__(self, moves: Moves, start: Start) -> Moves:
        """See :data:`Step`."""
        openness, reached = np.empty_like(moves.gripper), start.openness
        for h in range(openness.shape[1]):
            reached = np.clip(reached + moves.gripper[:, h], 0.0, 1.0)
            openness[:, h] = reached
        return replace(moves, gripper=openness)


@dataclass(frozen=True)
class Differences:
    """A gripper's openness as its changes."""

    def __call__(self, moves: Moves, start: Start) -> Moves:
        """See :data:`Step`."""
        return replace(moves, gripper=np.diff(moves.gripper, axis=1, prepend=start.openness[:, None]))


@dataclass(frozen=True)
class _Frame:
    """The robot's base, seen from the world."""

    position: Floats
    attitude: Floats

    @classmethod
    def of(cls, pose: Floats) -> _Frame:
        """The base whose pose in the world is ``[7]``: position (m) and quaternion (w x y z)."""
        return cls(np.asarray(pose[:3]), rotations.matrix_from_quaternion(pose[3:]))

    def axes(self, frame: str) -> Floats:
        """Axes of a frame, seen from the base."""
        return self.attitude.T if frame == "world" else np.eye(3)

    def inside(self, moves: Moves) -> Moves:
        """Poses in the world as poses in the base frame."""
        place = rotations.rotate(self.attitude.T, moves.translation - self.position)
        return replace(moves, translation=place, rotation=self.attitude.T @ moves.rotation)

    def outside(self, moves: Moves) -> Moves:
        """Poses in the base frame as poses in the world."""
        place = self.position + rotations.rotate(self.attitude, moves.translation)
        return replace(moves, translation=place, rotation=self.attitude @ moves.rotation)


def _tool(convention: Convention) -> Floats:
    return rotations.matrix_from_quaternion(convention.tool)


def _same_poses(source: Convention, target: Convention) -> bool:
    """True if motions mean the same; chained and delta motions differ after a step that falls short."""
    if source.space != "pose" or target.space != "pose":
        return True
    absolute = [side.motion == "absolute" for side in (source, target)]
    if source.frame != target.frame or absolute[0] != absolute[1]:
        return False
    return source.tool == target.tool or not (absolute[0] or source.frame == "tool")


def _written_alike(source: Convention, target: Convention) -> bool:
    if source.space == "pose" and source.rotation != target.rotation:
        return False
    return (source.low, source.high, source.gripper, source.size) == (
        target.low,
        target.high,
        target.gripper,
        target.size,
    )


# ---------------------------------------------------------------------- states


def read_state(values: ArrayLike, convention: Convention, base: ArrayLike = ORIGIN) -> tuple[Floats, Floats]:
    """States ``[N, D]`` as poses of the TCP in the base frame ``[N, 7]`` and openness ``[N]``.

    Raises:
        InvalidConfigError: if they have not as many numbers as the convention says, or hold no pose.
    """
    array, layout = np.asarray(values, np.float64), convention.state
    if array.shape[-1] != len(layout.names):
        raise InvalidConfigError(
            f"A state of the convention {convention.name} has {len(layout.names)} numbers ({' '.join(layout.names)}); "
            f"got {array.shape[-1]}: name the convention that it follows."
        )
    check_has_pose(convention)
    rotation = matrices(array[..., layout.columns(*rotation_names(layout.rotation))], layout.rotation)
    moves = Moves(array[..., layout.columns(*POSITION)], rotation, np.empty(0))
    if layout.frame == "world":
        moves = _Frame.of(np.asarray(base, np.float64)).inside(moves)
    attitude = rotations.quaternion_from_matrix(moves.rotation @ _tool(convention).T)
    grip = layout.columns("gripper")[:1]
    openness = layout.gripper.openness(array[..., grip[0]]) if grip else np.ones(array.shape[:-1])
    return np.concatenate([moves.translation, attitude], -1), openness


def write_state(pose: Floats, openness: Floats, convention: Convention, base: ArrayLike = ORIGIN) -> Floats:
    """The inverse of :func:`read_state`."""
    layout = convention.state
    check_has_pose(convention)
    moves = Moves(pose[..., :3], rotations.matrix_from_quaternion(pose[..., 3:]) @ _tool(convention), np.empty(0))
    if layout.frame == "world":
        moves = _Frame.of(np.asarray(base, np.float64)).outside(moves)
    out = np.zeros((*pose.shape[:-1], len(layout.names)))
    out[..., layout.columns(*POSITION)] = moves.translation
    out[..., layout.columns(*rotation_names(layout.rotation))] = turned(moves.rotation, layout.rotation)
    for number, column in enumerate(layout.columns("gripper")):
        # Two fingers move against each other.
        out[..., column] = layout.gripper.numbers(openness) * (-1 if number else 1)
    return out


def check_has_pose(convention: Convention) -> None:
    """Raise :class:`InvalidConfigError` unless states of a convention hold the tool's pose."""
    layout: State = convention.state
    needed = (*POSITION, *rotation_names(layout.rotation))
    if layout.unknown or any(name not in layout.names for name in needed):
        raise InvalidConfigError(
            f"A state of the convention {convention.name} should hold {' '.join(needed)} and may hold gripper and "
            f"{PAD}; it holds {' '.join(layout.names) or 'nothing'}: choose another convention."
        )
