"""Everything that is wrong with a data set, before anybody trains on it; and one of its episodes as an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from vlaser_gym.conventions import get_convention, rotations
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.projection import Projector
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.errors import GymError
from vlaser_gym.evaluation.lerobot_reader import LeRobotReader
from vlaser_gym.training.data.rows import Rows, checked_rows
from vlaser_gym.training.data.sources import Source

Floats = NDArray[np.float64]
#: A column is named constant if it changes by less (m, rad, shares).
CONSTANT = 1e-7
#: Largest difference of a row's timestamp from its place (s), and of a quaternion's length from 1.
LATE, UNIT = 0.02, 1e-2
#: Images of the drawn episode, and their width (pixels).
PICTURES, WIDTH = 8, 320
#: Arrows are drawn so many times as long as the motion is.
LONGER = 10.0
_STATE, _ACTION, _OPEN, _CLOSED = (80, 220, 80), (255, 120, 40), (80, 220, 80), (235, 64, 52)


def problems(source: Source, robot: str) -> Iterator[str]:
    """Each as one sentence with file, column and row, those that stop a training first.

    Args:
        source: the data set.
        robot: that a policy is trained for.
    """
    try:
        reader = source.reader()
    except GymError as error:
        yield str(error)
        return
    rows: list[Rows] = []
    yield from _said(lambda: rows.append(checked_rows(reader, source, robot)))
    yield from _said(lambda: _decode(reader))
    yield from _said(lambda: None if rows else reader.instructions(source.columns.instruction or "task_index"))
    if rows:
        unsampled = replace(source, fps=float(reader.info["fps"]))
        whole = rows[0] if source.fps is None else checked_rows(reader, unsampled, robot)
        yield from _doubts(reader, whole, robot)


def _said(check: Callable[[], Any]) -> Iterator[str]:
    try:
        check()
    except GymError as error:
        yield str(error)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        yield f"The data set cannot be read ({type(error).__name__}: {error}); restore its files."


def _decode(reader: LeRobotReader) -> None:
    for _ in reader.frames():
        pass


def _doubts(reader: LeRobotReader, rows: Rows, robot: str) -> Iterator[str]:
    """Suspicious properties of a data set that can be trained on all the same."""
    state, action = rows.names["state"], rows.names["action"]
    lengths = np.linalg.norm(rows.proprio[:, 3:7], axis=1)
    yield from _first(
        reader, np.abs(lengths - 1) > UNIT, lambda row: f"{state} has a quaternion of length {lengths[row]:.3g}, not 1"
    )
    convention = get_convention(robot)
    steps = np.linalg.norm(rows.actions[:, 0, :3], axis=1)
    yield from _first(
        reader,
        steps > convention.reach,
        lambda row: (
            f"{action} moves {steps[row]:.3g} m in one step, more than {robot} reaches ({convention.reach:g} m)"
        ),
    )
    turns = np.linalg.norm(rows.actions[:, 0, 3:6], axis=1)
    yield from _first(
        reader, turns > np.pi + CONSTANT, lambda row: f"{action} turns by {turns[row]:.3g} rad in one step"
    )
    if "timestamp" in reader.features:
        times = reader.columns(["timestamp"])["timestamp"].astype(np.float64)
        places = np.concatenate([np.arange(part.stop - part.start) for part in rows.episodes])
        late = np.abs(times - places / float(reader.info["fps"]))
        yield from _first(
            reader, late > LATE, lambda row: f"timestamp is {times[row]:.3f} s, {late[row]:.3f} s from its place"
        )
    for name, values in ((state, rows.proprio), (action, rows.actions[:, 0])):
        still = np.flatnonzero(np.ptp(values, axis=0) < CONSTANT)
        if len(values) > 1 and len(still):
            yield (
                f"{reader.path}: numbers {', '.join(map(str, still))} of {name} never change (in this gym's units); "
                "statistics of them say nothing."
            )


def _first(reader: LeRobotReader, wrong: NDArray[np.bool_], says: Callable[[int], str]) -> Iterator[str]:
    """The first of the rows that are wrong, and how many there are."""
    if wrong.any():
        row = int(np.argmax(wrong))
        yield f"{reader.place(row)}: {says(row)}. Rows like it: {wrong.sum()} of {len(wrong)}."


# ---------------------------------------------------------------------- an image


def drawn(source: Source, robot: str, episode: int) -> NDArray[np.uint8]:
    """Images of one episode in a row of strips, ``[h, w, 3]``: what the arm was told, onto what the camera saw.

    Below each image the motion from above (x up, y to the left) and the gripper: the state's and the action's. In
    sets that this gym recorded the arrows also stand in the image, at the tool, as its camera is known.

    Raises:
        InvalidConfigError, StorageError: as training would.
    """
    reader = source.reader()
    rows = checked_rows(reader, replace(source, fps=float(reader.info["fps"])), robot)
    part = rows.episodes[episode]
    chosen = np.zeros(reader.total_frames, bool)
    chosen[part.start + np.unique(np.linspace(0, part.stop - part.start - 1, PICTURES).astype(int))] = True
    frames = next(iter(reader.frames(chosen)))
    picked = np.flatnonzero(chosen)
    points = _pixels(rows, picked, robot) if reader.is_of_this_gym else None
    panels = [
        _panel(frame, rows, int(row), robot, None if points is None else points[i])
        for i, (frame, row) in enumerate(zip(frames, picked, strict=True))
    ]
    return np.concatenate(panels, axis=1)


def _panel(frame: NDArray[np.uint8], rows: Rows, row: int, robot: str, ends: Floats | None) -> NDArray[np.uint8]:
    height = round(frame.shape[0] * WIDTH / frame.shape[1])
    picture = np.ascontiguousarray(cv2.resize(frame, (WIDTH, height), interpolation=cv2.INTER_AREA))
    if ends is not None:
        scale = np.array([WIDTH, height]) / np.array(_camera_size(robot))
        a, b = (tuple(int(value) for value in end * scale) for end in ends)
        cv2.circle(picture, a, 4, _STATE, -1)
        cv2.arrowedLine(picture, a, b, _ACTION, 2, cv2.LINE_AA, tipLength=0.3)
    return np.concatenate([picture, _below(rows, row, robot)], 0)


def _below(rows: Rows, row: int, robot: str) -> NDArray[np.uint8]:
    """The motion from above and the gripper, with the numbers."""
    canvas = np.full((120, WIDTH, 3), 30, np.uint8)
    x, y, z = rows.actions[row, 0, :3]
    start = (60, 60)
    end = (round(60 - y * LONGER * 60 / 0.3), round(60 - x * LONGER * 60 / 0.3))
    cv2.circle(canvas, start, 4, _STATE, -1)
    cv2.arrowedLine(canvas, start, tuple(np.clip(end, 2, 117).tolist()), _ACTION, 2, cv2.LINE_AA, tipLength=0.3)
    place = rows.proprio[row]
    told = float(rows.gripper.openness(rows.actions[row, 0, 6:], robot)[0])
    for line, text in enumerate(
        (
            f"row {row}",
            f"at {place[0]:+.2f} {place[1]:+.2f} {place[2]:+.2f} m",
            f"by {1000 * x:+.0f} {1000 * y:+.0f} {1000 * z:+.0f} mm",
            f"grip {place[7]:.2f} -> {told:.2f}",
        )
    ):
        cv2.putText(canvas, text, (128, 26 + 26 * line), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (230,) * 3, 1, cv2.LINE_AA)
    for left, openness in ((288, place[7]), (302, told)):
        colour = _OPEN if openness > 0.5 else _CLOSED
        top = round(110 - 100 * float(np.clip(openness, 0, 1)))
        cv2.rectangle(canvas, (left, top), (left + 8, 110), colour, -1)
    return canvas


def _task_of(robot: str) -> str:
    return next(name for name in task_names() if get_setup(get_task(name).robot_setup).robot.name == robot)


def _camera_size(robot: str) -> tuple[int, int]:
    camera = get_setup(get_task(_task_of(robot)).robot_setup).camera
    return camera.width, camera.height


def _pixels(rows: Rows, picked: NDArray[np.int64], robot: str) -> Floats:
    """The pixels ``[n, 2, 2]`` of the tool and of the arrow's end in the image of a camera on the robot's base."""
    setup = get_setup(get_task(_task_of(robot)).robot_setup)
    projector, count = Projector(setup), len(picked)
    base = np.repeat([setup.base_pose], count, 0)
    qpos = np.repeat([setup.qpos], count, 0)
    turn = rotations.matrix_from_quaternion(base[:, 3:])
    ends = []
    for longer in (0.0, LONGER):
        local = rows.proprio[picked, :3] + longer * rows.actions[picked, 0, :3]
        seen = projector.seen(qpos, base, base[:, :3] + rotations.rotate(turn, local))
        ends.append(projector.pixels(seen))
    return np.stack(ends, 1)


def save(picture: NDArray[np.uint8], file: Path) -> None:
    """Write an image as PNG."""
    from PIL import Image  # noqa: PLC0415

    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(file)
