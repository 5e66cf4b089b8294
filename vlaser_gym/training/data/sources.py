"""The source of demonstrations: a data set, the names of its columns and their convention."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from vlaser_gym.conventions import Convention
from vlaser_gym.conventions.convention import PAD
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.lerobot_reader import LeRobotReader
from vlaser_gym.training.data.gripper_column import GripperColumn


@dataclass(frozen=True)
class Columns:
    """Names of a data set's columns; ``None`` for LeRobot's and this gym's own.

    Attributes:
        camera: images.
        state: proprioception.
        action: actions.
        instruction: texts, or their numbers in ``meta/tasks``.
        privileged: the simulator's state, which only this gym's sets have.
    """

    camera: str | None = None
    state: str | None = None
    action: str | None = None
    instruction: str | None = None
    privileged: str | None = None

    @classmethod
    def parse(cls, given: Mapping[str, Any] | None) -> Columns:
        """Parse a mapping.

        Raises:
            UnknownNameError: for a column that is none of these.
            InvalidConfigError: for a name that is no text.
        """
        known = [entry.name for entry in fields(cls)]
        for key, value in (given or {}).items():
            if key not in known:
                raise UnknownNameError("column", key, known)
            if value is not None and not isinstance(value, str):
                raise InvalidConfigError(f"columns.{key} must be the name of a column or null; got {value!r:.99}.")
        return cls(**(given or {}))


@dataclass(frozen=True)
class Source:
    """One data set of those that are trained on.

    Attributes:
        path: its folder.
        weight: how often its samples come, relative to those of the others, whatever their number.
        columns: their names.
        convention: what states and actions mean; ``None``: what this gym's do.
        gripper: what the last number of the actions means, where there is no convention.
        fps: rows per second that it is resampled to; ``None``: its own, which must be the robot's.
        first: only so many samples from the beginning of each episode; ``None``: all. A set that is named a second time
            with it shows more often what only the instruction tells: where the arm is going from its start.
    """

    path: str
    weight: float = 1.0
    columns: Columns = field(default_factory=Columns)
    convention: Convention | None = None
    gripper: GripperColumn = field(default_factory=GripperColumn)
    fps: float | None = None
    first: int | None = None

    def reader(self, groups: int | None = None) -> LeRobotReader:
        """Reads it; ``groups``: so many files of its index."""
        return LeRobotReader(self.path, groups, self.columns.camera)

    def spoken(self, size: int) -> Convention | None:
        """The convention for states of so many numbers: some copies of a data set have its padding and some do not."""
        known = self.convention
        names = () if known is None else tuple(name for name in known.state.names if name != PAD)
        if known is not None and len(known.state.names) != size == len(names):
            return replace(known, state=replace(known.state, names=names))
        return known


def sources(settings: Any) -> list[Source]:
    """The data sets that a run's settings name.

    Args:
        settings: with ``data`` (a path, or a list of paths and of mappings with ``path`` and what differs for it),
            ``columns``, ``convention``, ``gripper`` and ``fps``.

    Raises:
        UnknownNameError: for a key that a data set does not have.
        InvalidConfigError: for something else than a path or a mapping, and for weights that are not above 0.
    """
    given = settings.data if isinstance(settings.data, list | tuple) else [settings.data]
    return [_source(entry, settings) for entry in given]


_KEYS = ("path", "weight", "columns", "convention", "gripper", "fps", "first")


def _source(given: Any, settings: Any) -> Source:
    entry: Any = {"path": given} if isinstance(given, str) else given
    if not isinstance(entry, Mapping) or not isinstance(entry.get("path"), str):
        raise InvalidConfigError(
            f"data is a folder, or a list of folders and of mappings such as {{path: A, weight: 2}}; got {given!r:.99}."
        )
    for key in entry:
        if key not in _KEYS:
            raise UnknownNameError("key of a data set", key, _KEYS)
    whole = {key: getattr(settings, key) for key in ("convention", "gripper", "fps")} | dict(entry)
    weight, fps = whole.get("weight", 1.0), whole["fps"]
    for key, number in (("weight", weight), ("fps", fps)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, int | float) or not number > 0):
            raise InvalidConfigError(f"{key} of the data set {entry['path']} must be a number above 0; got {number!r}.")
    first = whole.get("first")
    if first is not None and (isinstance(first, bool) or not isinstance(first, int) or first < 1):
        raise InvalidConfigError(
            f"first of the data set {entry['path']} must be a number of samples, at least 1; got {first!r}."
        )
    return Source(
        path=whole["path"],
        weight=float(weight),
        columns=Columns.parse({**(settings.columns or {}), **(entry.get("columns") or {})}),
        convention=None if whole["convention"] is None else Convention.parse(whole["convention"]),
        gripper=GripperColumn.parse(whole["gripper"]),
        fps=None if fps is None else float(fps),
        first=first,
    )
