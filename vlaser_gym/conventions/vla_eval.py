"""vla-eval's words for conventions ("specs", :mod:`vla_eval.specs` of 0.8.0), from ours and into ours.

Its words say less than a :class:`~vlaser_gym.conventions.Convention`: nothing of the frame, of what 1 stands for in
numbers from -1 to 1 (every position delta is said to have that range), of rates and of quaternions' order in states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlaser_gym.conventions.convention import Convention, Gripper, Motion, rotation_size
from vlaser_gym.errors import InvalidConfigError

Spec = dict[str, dict[str, Any]]

#: Our names of rotations by theirs; their Euler angles turn about fixed axes, as SciPy's lower-case ``xyz``.
ROTATIONS = {
    "axis_angle": "axis_angle",
    "euler_xyz": "euler:xyz",
    "quaternion_xyzw": "quaternion_xyzw",
    "rot6d_interleaved": "rot6d_rows",
}
MOTIONS: Mapping[str, Motion] = {"delta_xyz": "delta", "absolute_xyz": "absolute"}
#: What their grippers' numbers mean. Their ``continuous_01`` and ``raw`` do not say which end is open.
GRIPPERS = {
    "binary_close_positive": Gripper(open=-1.0, closed=1.0),
    "binary_close_negative": Gripper(open=1.0, closed=-1.0),
    "binary_close_01": Gripper(open=0.0, closed=1.0),
}
#: Formats of our own for what they have no word for; whoever does not know them warns.
_OTHER = "vlaser_gym_{}"
#: Their word for states of position, quaternion and gripper.
_POSE = "eef_pos3_quat4_gripper1"


def action_spec(convention: Convention) -> Spec:
    """The action specification of an agent in vla-eval's terms."""
    if convention.space != "pose":
        return {convention.space: _part(convention.space, convention.size, _OTHER.format(convention.space))}
    motion = "absolute_xyz" if convention.motion == "absolute" else "delta_xyz"
    rotation = next((theirs for theirs, ours in ROTATIONS.items() if ours == convention.rotation), None)
    place = _part("position", 3, motion, (-1.0, 1.0) if convention.low else None)
    turn = _part("rotation", rotation_size(convention.rotation), rotation or _OTHER.format(convention.rotation))
    gripper = convention.gripper
    known = next((theirs for theirs, ours in GRIPPERS.items() if ours == gripper), None)
    numbers = f"{gripper.mode}_open{gripper.open:g}_closed{gripper.closed:g}"
    return {"position": place, "rotation": turn, "gripper": _part("gripper", 1, known or _OTHER.format(numbers))}


def observation_spec(observes: Sequence[str], convention: Convention | None) -> Spec:
    """The observation specification of an agent or environment in vla-eval's terms."""
    spec: Spec = {name: _part(name, 0, "rgb_hwc_uint8") for name in observes if name.endswith("image")}
    if "instruction" in observes:
        spec["language"] = _part("language", 0, "language")
    if "proprio" in observes:
        layout = None if convention is None else convention.state
        ours = layout is None or (len(layout.names) == 8 and layout.rotation.startswith("quaternion"))
        count = 8 if layout is None else len(layout.names)
        spec["state"] = _part("state", count, _POSE if ours else _OTHER.format("state"))
    if "state" in observes:
        spec["privileged"] = _part("privileged", 0, _OTHER.format("privileged"))
    return spec


def convention_of(spec: Mapping[str, Any], name: str) -> Convention | None:
    """The convention that a model server declares for its actions, in metres; ``None`` without one.

    Raises:
        InvalidConfigError: for formats that do not say enough, or that this gym does not know.
    """
    if not spec:
        return None
    motion = MOTIONS.get(_format(spec, "position"))
    rotation = ROTATIONS.get(_format(spec, "rotation"))
    gripper = GRIPPERS.get(_format(spec, "gripper"))
    if motion is None or rotation is None or gripper is None:
        said = ", ".join(f"{part}: {_format(spec, part) or 'nothing'}" for part in ("position", "rotation", "gripper"))
        raise InvalidConfigError(
            f"{name} should say of its actions position ({', '.join(MOTIONS)}), rotation ({', '.join(ROTATIONS)}) and "
            f"gripper ({', '.join(GRIPPERS)}); it says {said}"
        )
    return Convention(name=name, motion=motion, rotation=rotation, gripper=gripper)


def _format(spec: Mapping[str, Any], part: str) -> str:
    entry = spec.get(part)
    return str(entry.get("format", "")) if isinstance(entry, Mapping) else ""


def _part(name: str, dims: int, kind: str, bounds: tuple[float, float] | None = None) -> dict[str, Any]:
    return {"name": name, "dims": dims, "format": kind, **({} if bounds is None else {"range": list(bounds)})}
