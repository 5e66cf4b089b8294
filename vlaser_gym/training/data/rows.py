"""The rows of one data set: read by its own names, checked, in this gym's units, at the robot's rate."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import (
    CONVENTIONS,
    PRESETS,
    Convention,
    Conversion,
    Gripper,
    Start,
    get_convention,
    rotations,
)
from vlaser_gym.conventions.conversion import read_state
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.lerobot_reader import INFO_PATH, LeRobotReader
from vlaser_gym.training.data.gripper_column import MEANINGS, GripperColumn
from vlaser_gym.training.data.sources import Columns, Source

Floats = NDArray[np.float64]
#: What a row of a column holds, and how many numbers.
_HOLDS = {
    "state": (8, "pose of the TCP in the base frame (m, quaternion w, x, y, z) and the gripper's openness"),
    "action": (7, "translation (m), axis-angle rotation (rad) and the gripper"),
    "privileged": (26, "the simulator's state"),
}
#: Largest share by which a data set's rate may differ from the robot's.
RATE_TOLERANCE = 0.01
#: What LeRobot writes where nobody said which robot it is.
_UNTOLD = (None, "", "unknown")


@dataclass(frozen=True)
class Rows:
    """The rows of one data set, in this gym's units, whatever its layout and convention.

    Attributes:
        names: of the columns that were read.
        proprio, state: ``[R, 8]`` and ``[R, 26]``; ``state`` is ``None`` where the data set has none.
        actions: ``[R, K, 7]``, K actions from each row on, of which ``steps [R]`` ran before the next row. Today K is
            1; data sets used to have rows at decisions only, and a block of actions in each.
        chosen: ``[R]``, the rows that are samples.
        told: instruction of each sample.
        episodes: their rows.
        pictured: which of the data set's rows the samples' images are in; it has more rows where it was resampled.
        gripper: what the actions' last number means.
    """

    names: dict[str, str]
    proprio: Floats
    state: Floats | None
    actions: Floats
    steps: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    told: list[str]
    episodes: list[slice]
    pictured: NDArray[np.bool_]
    gripper: GripperColumn

    @classmethod
    def read(cls, reader: LeRobotReader, source: Source) -> Rows:
        """Read the columns; convert them where a convention says what they mean.

        Raises:
            StorageError: if a column is missing.
            InvalidConfigError: if a column is not what its convention says.
        """
        names = _column_names(reader, source.columns)
        reader.require(*names.values(), reader.camera)
        found = reader.columns(list(names.values()))
        columns = {key: found[name] for key, name in names.items()}
        count = reader.total_frames
        chosen = columns.get("decision", np.ones(count, bool)).astype(bool)
        steps = columns.get("steps", np.ones(count, np.int64))
        actions = columns["action"].reshape(count, -1, columns["action"].shape[-1])
        told = reader.instructions(source.columns.instruction or "task_index")
        rows = cls(
            names=names,
            proprio=columns["state"],
            state=columns.get("privileged"),
            actions=actions,
            steps=steps,
            chosen=chosen,
            told=[text for text, wanted in zip(told, chosen, strict=True) if wanted],
            episodes=[slice(e["dataset_from_index"], e["dataset_to_index"]) for e in reader.episodes],
            pictured=chosen,
            gripper=source.gripper,
        )
        return rows if source.convention is None else converted(rows, reader, source)

    def chunks(self, horizon: int) -> Floats:
        """The actions from each sample on, ``[N, H, 7]``."""
        parts = [chunked(self.actions[rows], self.steps[rows], horizon)[self.chosen[rows]] for rows in self.episodes]
        return np.concatenate(parts)

    def eligible(self, first: int | None) -> NDArray[np.int64]:
        """Numbers of the samples to be learned from: all, or so many of each episode."""
        counts = [int(self.chosen[rows].sum()) for rows in self.episodes]
        place = np.concatenate([np.arange(count) for count in counts])
        return np.arange(len(place)) if first is None else np.flatnonzero(place < first)

    def ran(self) -> Floats:
        """The action of every control step once, ``[T, 7]``."""
        return self.actions[np.arange(self.actions.shape[1]) < self.steps[:, None]]


def checked_rows(reader: LeRobotReader, source: Source, robot: str) -> Rows:
    """Everything of a data set but its images, checked, at the robot's rate or the one asked for.

    Raises:
        InvalidConfigError, StorageError: with the first thing that is wrong.
    """
    _check_robot(reader, robot)
    _check_rate(reader, source, robot)
    rows = Rows.read(reader, source)
    _check_numbers(reader, rows.names["state"], "state", rows.proprio)
    _check_numbers(reader, rows.names["action"], "action", rows.actions)
    if rows.state is not None:
        _check_numbers(reader, rows.names["privileged"], "privileged", rows.state)
    _check_gripper(reader, rows, rows.gripper, robot)
    _check_decisions(reader, rows)
    return rows if source.fps is None else resampled(rows, float(reader.info["fps"]), source.fps)


def converted(rows: Rows, reader: LeRobotReader, source: Source) -> Rows:
    """Rows whose numbers follow a convention, in this gym's units; the gripper becomes its openness.

    Raises:
        InvalidConfigError: if a column has not the convention's size, holds numbers that are not finite, or no pose.
    """
    convention = source.spoken(rows.proprio.shape[-1])
    assert convention is not None
    for key, values, size in (
        ("state", rows.proprio, len(convention.state.names)),
        ("action", rows.actions, convention.size),
    ):
        meaning = f"as the convention {convention.name} has them"
        _check_holds(reader, rows.names[key], values, size, f"should hold {size} finite numbers {meaning}")
    pose, openness = read_state(rows.proprio, convention)
    proprio = np.concatenate([pose, openness[:, None]], -1)
    conversion = Conversion(convention, LABELS)
    parts = [
        conversion.actions(rows.actions[part].swapaxes(0, 1), Start.of(proprio[part][:1])).swapaxes(0, 1)
        for part in rows.episodes
    ]
    return replace(rows, proprio=proprio, actions=np.concatenate(parts), gripper=GripperColumn("open"))


#: What actions are converted to: deltas in the base frame, axis-angle, and openness.
LABELS = Convention(name="labels", gripper=Gripper(1.0, 0.0))


def resampled(rows: Rows, fps: float, target: float) -> Rows:
    """Fewer rows per second: those nearest to the new times, each with all motion up to the next one.

    Args:
        rows: one action each.
        fps, target: rows per second before and after.

    Raises:
        InvalidConfigError: if the new rate is higher, or rows hold blocks of actions.
    """
    if target > fps * (1 + RATE_TOLERANCE) or rows.actions.shape[1] != 1:
        raise InvalidConfigError(
            f"Data of {fps:g} rows per second with one action each can be resampled to fewer; got fps={target:g}."
        )
    picks = [part.start + _times(part.stop - part.start, fps, target) for part in rows.episodes]
    picked = np.concatenate(picks)
    ends = np.concatenate([np.append(pick[1:], part.stop) for pick, part in zip(picks, rows.episodes, strict=True)])
    keeps = rows.chosen[picked]
    lengths = np.cumsum([0, *map(len, picks)])
    samples = np.flatnonzero(rows.chosen)
    told = dict(zip(samples.tolist(), rows.told, strict=True))
    pictured = np.zeros(len(rows.pictured), bool)
    pictured[picked[keeps]] = True
    return replace(
        rows,
        proprio=rows.proprio[picked],
        state=None if rows.state is None else rows.state[picked],
        actions=np.stack([_composed(rows.actions[a:b, 0]) for a, b in zip(picked, ends, strict=True)])[:, None],
        steps=rows.steps[picked],
        chosen=keeps,
        told=[told[int(row)] for row in picked[keeps]],
        episodes=[slice(int(a), int(b)) for a, b in pairwise(lengths)],
        pictured=pictured,
    )


def _times(length: int, fps: float, target: float) -> NDArray[np.int64]:
    """Rows of an episode nearest to the times of another rate."""
    rows = np.round(np.arange(0, length / fps * target) * fps / target).astype(np.int64)
    return np.asarray(np.unique(rows[rows < length]))


def _composed(actions: Floats) -> Floats:
    """Motions ``[n, 7]`` one after another as one ``[7]``; the gripper's last number."""
    turn = np.eye(3)
    for action in actions:
        turn = rotations.matrix_from_axis_angle(action[3:6]) @ turn
    return np.concatenate([actions[:, :3].sum(0), rotations.axis_angle_from_matrix(turn), actions[-1:, 6]])


def _column_names(reader: LeRobotReader, columns: Columns) -> dict[str, str]:
    """The names of the columns to read: those given, today's, or those of the earlier layout."""
    if "privileged.decision" in reader.features:
        names = {
            "state": "observation.state",
            "action": "action",
            "privileged": "privileged.state",
            "decision": "privileged.decision",
        }
    else:
        label = "action.intended" if "action.intended" in reader.features else "action"
        names = {"state": "observation.state", "action": label, "privileged": "observation.environment_state"}
        has_blocks = len(reader.features.get(label, {"shape": [7]})["shape"]) > 1
        if has_blocks or "steps" in reader.features:
            names["steps"] = "steps"
    given = {"state": columns.state, "action": columns.action, "privileged": columns.privileged}
    names |= {key: name for key, name in given.items() if name is not None}
    if not reader.is_of_this_gym and columns.privileged is None:
        # Other projects use the name for other numbers: this simulator's state is told by its width.
        feature = reader.features.get(names["privileged"])
        if feature is None or list(feature["shape"]) != [_HOLDS["privileged"][0]]:
            del names["privileged"]
    return names


def has_privileged(reader: LeRobotReader, source: Source) -> bool:
    """True if a data set holds the simulator's state."""
    return "privileged" in _column_names(reader, source.columns)


def _check_numbers(reader: LeRobotReader, name: str, kind: str, values: NDArray[Any]) -> None:
    """Raise :class:`InvalidConfigError` unless each row holds so many finite numbers."""
    count, words = _HOLDS[kind]
    _check_holds(reader, name, values, count, f"should hold {count} finite numbers: {words}")


def _check_holds(reader: LeRobotReader, name: str, values: NDArray[Any], count: int, wanted: str) -> None:
    if values.shape[-1] != count:
        raise InvalidConfigError(
            f"{reader.path}: each row of {name} {wanted}; it holds {values.shape[-1]}{_named(reader, name)}: say what "
            "they mean by convention=, such as convention=bridge, or name another column by columns.state= or "
            "columns.action=."
        )
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidConfigError(
            f"{reader.place(row)}: {name} {wanted}; it holds {_shown(values[row])}. Rows like it: {bad.sum()} of "
            f"{len(bad)}; mend them, or take their episodes out of the data set."
        )


def _named(reader: LeRobotReader, name: str) -> str:
    """The data set's own names of a column's numbers, and the convention whose state has these names."""
    names = reader.features[name].get("names")
    listed = next(iter(names.values()), None) if isinstance(names, dict) else names
    if not isinstance(listed, list) or not all(isinstance(word, str) for word in listed):
        return ""
    alike = [known.name for known in PRESETS.values() if known.state.names and list(known.state.names) == listed]
    return f" ({' '.join(listed)}{', as ' + ' and '.join(alike) if alike else ''})"


def _check_rate(reader: LeRobotReader, source: Source, robot: str) -> None:
    """Raise :class:`InvalidConfigError` for another project's set whose rows are not as far apart as control steps."""
    fps, wanted = reader.info.get("fps"), get_convention(robot).control_hz if robot in CONVENTIONS else None
    if not isinstance(fps, int | float) or not fps > 0:
        raise InvalidConfigError(f"{reader.path / INFO_PATH} should say the rows per second as fps; got {fps!r:.30}.")
    if reader.is_of_this_gym or source.fps is not None or wanted is None:
        return
    if abs(fps / wanted - 1) > RATE_TOLERANCE:
        raise InvalidConfigError(
            f"{reader.path} has {fps:g} rows per second, and {robot} takes {wanted:g} actions: resample it by "
            f"fps={wanted:g}, or take it as it is by fps={fps:g}."
        )


def _check_gripper(reader: LeRobotReader, rows: Rows, gripper: GripperColumn, robot: str) -> None:
    """Raise :class:`InvalidConfigError` where the last number of an action cannot be what it is said to be."""
    values = rows.actions[..., 6]
    wrong = gripper.wrong(values, robot, reader.is_of_this_gym)
    if wrong.any():
        row, step = (int(i) for i in np.argwhere(wrong)[0])
        raise InvalidConfigError(
            f"{reader.place(row)}: the gripper, the last number of {rows.names['action']}, is {values[row, step]:g} "
            f"({values.min():g} to {values.max():g} in the whole data set), where it should be "
            f"{gripper.expected(robot, reader.is_of_this_gym)}; say what it means by gripper= with one of "
            f"{', '.join(MEANINGS)}, or name the data's convention=."
        )


def _check_decisions(reader: LeRobotReader, rows: Rows) -> None:
    """Raise :class:`InvalidConfigError` if no row is a sample, or a row counts steps that its block does not have."""
    if not rows.chosen.any():
        raise InvalidConfigError(f"{reader.path}: privileged.decision marks no row, so that there is nothing to learn.")
    wrong = (rows.steps < 1) | (rows.steps > rows.actions.shape[1])
    if wrong.any():
        row = int(np.argmax(wrong))
        raise InvalidConfigError(
            f"{reader.place(row)}: steps should be 1 to {rows.actions.shape[1]}, as many as a row has actions; it is "
            f"{rows.steps[row]}."
        )


def _shown(values: NDArray[Any]) -> str:
    return "[" + ", ".join(f"{value:.4g}" for value in values.ravel()) + "]"


def _check_robot(reader: LeRobotReader, robot: str) -> None:
    """Raise :class:`InvalidConfigError` for a data set that says it is another robot's."""
    told = reader.info.get("robot_type")
    found = str(told)
    if told not in _UNTOLD and not found.startswith(robot):
        raise InvalidConfigError(f"The policy is for {robot}; the data set {reader.path} is of {found}.")


def chunked(labels: Floats, steps: NDArray[np.int64], horizon: int) -> Floats:
    """Chunks of one episode.

    Args:
        labels: ``[R, K, 7]``, K actions from each row on.
        steps: ``[R]``, how many of them ran before the next row.
        horizon: H.

    Returns:
        ``[R, H, 7]``: from each row on, the last action repeated behind the end.
    """
    sequence = np.concatenate([row[:count] for row, count in zip(labels, steps, strict=True)])
    first = np.cumsum(steps) - steps
    index = np.minimum(first[:, None] + np.arange(horizon), len(sequence) - 1)
    return np.asarray(sequence[index], np.float64)
