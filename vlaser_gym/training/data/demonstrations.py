"""Demonstrations as a policy trains on them: pictures, proprioception, instruction and chunks of actions.

Samples come from data sets in LeRobot's layout (:mod:`vlaser_gym.evaluation.lerobot_reader`): from the rows at which
the policy decides, where a data set marks them. Their pictures are decoded once, at the policy's size, into a
memory-mapped array (:mod:`vlaser_gym.training.data.pictures`); everything else is small and kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vlaser_gym.agents.trainable import ImageResize, TrainableAgent
from vlaser_gym.agents.vlaser.processor import robot_proprio
from vlaser_gym.agents.vlaser.statistics import Moments, Statistics
from vlaser_gym.conventions import rotations
from vlaser_gym.envs.vector import STATE_FIELDS
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.lerobot_reader import CAMERA, LeRobotReader, damage_as_sentence
from vlaser_gym.training.data.gripper_column import MEANINGS, GripperColumn
from vlaser_gym.training.data.pictures import cached_pixels

Floats = NDArray[np.float64]
#: What a row of a column holds, and how many numbers.
_HOLDS = {
    "state": (8, "pose of the TCP in the base frame (m, quaternion w, x, y, z) and the gripper's openness"),
    "action": (7, "translation (m), axis-angle rotation (rad) and the gripper"),
    "privileged": (26, "the simulator's state"),
}


class Demonstrations:
    """All samples of one or several data sets.

    Args:
        readers: data sets of one robot.
        robot: ``"widowx"`` or ``"google_robot"``.
        horizon: actions per chunk; behind an episode's end its last action is repeated.
        resize: makes the policy's pictures, unless they are stored at that size already.
        gripper: what the last number of the actions means.
        cache: folder of the decoded pictures; ``None``: in the user's cache.
        say: told if another process is decoding them and this one waits.

    Attributes:
        poses: ``[N, 8]``, proprioception as environments give it.
        proprio: ``[N, P]``, the same in the words of the robot's data set, not normalised.
        actions: ``[N, H, 7]``: translation (m), roll, pitch, yaw (rad), openness.
        steps: ``[T, 7]``, the actions of all control steps, each once.
        instructions: the different ones, and ``instruction [N]`` which of them each sample has.
        num_episodes: number of episodes.

    Raises:
        InvalidConfigError: if there is no episode, a data set is of another robot, or a number is not finite or cannot
            be what its column holds.
        StorageError: if a data set lacks a column or does not add up.
    """

    def __init__(
        self,
        readers: Sequence[LeRobotReader],
        robot: str,
        horizon: int,
        resize: ImageResize,
        gripper: GripperColumn | None = None,
        cache: str | Path | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.robot, self.horizon, self.gripper = robot, horizon, gripper or GripperColumn()
        self.instructions: list[str] = []
        if not any(reader.episodes for reader in readers):
            raise InvalidConfigError(f"The data sets {', '.join(str(r.path) for r in readers)} hold no episode.")
        readers = [reader for reader in readers if reader.episodes]
        rows, self._pixels = [], []
        for reader in readers:
            with damage_as_sentence(reader.path):
                rows.append(self._rows(reader))
                self._pixels.append(cached_pixels(reader, resize, rows[-1].chosen, cache, say))
        self._starts = np.cumsum([0, *(len(pixels) for pixels in self._pixels)])
        self.poses = np.concatenate([part.proprio[part.chosen] for part in rows])
        self.proprio = robot_proprio(self.poses, robot)
        self.state = np.concatenate([part.state[part.chosen] for part in rows])
        self.actions = np.concatenate([self._data_units(part.chunks(horizon)) for part in rows])
        self.steps = np.concatenate([self._data_units(part.ran()) for part in rows])
        self.instruction = np.concatenate([self._numbers(part.told) for part in rows])
        self.num_episodes = sum(len(reader.episodes) for reader in readers)

    def __len__(self) -> int:
        return len(self.proprio)

    def _rows(self, reader: LeRobotReader) -> _Rows:
        """Everything of a data set but its pictures, checked."""
        _check_robot(reader, self.robot)
        rows = _Rows.read(reader)
        _check_numbers(reader, rows.names["state"], "state", rows.proprio)
        _check_numbers(reader, rows.names["action"], "action", rows.actions)
        _check_numbers(reader, rows.names["privileged"], "privileged", rows.state)
        _check_gripper(reader, rows, self.gripper, self.robot)
        _check_decisions(reader, rows)
        return rows

    def _numbers(self, told: Sequence[str]) -> NDArray[np.int64]:
        """Each sample's instruction by its place among those of all data sets."""
        self.instructions += [text for text in dict.fromkeys(told) if text not in self.instructions]
        number = {text: n for n, text in enumerate(self.instructions)}
        return np.array([number[text] for text in told], np.int64)

    def _data_units(self, actions: Floats) -> Floats:
        """The environment's actions in the units that statistics are about."""
        openness = self.gripper.openness(actions[..., 6:], self.robot)
        return np.concatenate([actions[..., :3], rotations.euler_from_axis_angle(actions[..., 3:6]), openness], -1)

    def statistics(self) -> Statistics:
        """Moments and percentiles of the actions of all control steps and of the proprioception of all rows."""
        return Statistics(
            action=moments(self.steps),
            proprio=moments(self.proprio),
            num_transitions=len(self.steps),
            num_trajectories=self.num_episodes,
        )

    def places(self) -> Floats:
        """Where things are: ``[N, 10]``, positions of source and target (m) and the source's heading psi.

        The heading comes as cosine and sine of 2 psi and 4 psi, as a gripper does not tell its fingers apart.
        """
        source, target = (self.state[:, STATE_FIELDS[name]].astype(np.float64) for name in ("source", "target"))
        matrix = rotations.matrix_from_quaternion(source[:, 3:])
        psi = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
        angles = [f(k * psi) for k in (2, 4) for f in (np.cos, np.sin)]
        return np.concatenate([source[:, :3], target[:, :3], np.stack(angles, -1)], -1)

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Pictures ``[B, S, S, 3]`` of some rows."""
        out = np.empty((len(rows), *self._pixels[0].shape[1:]), np.uint8)
        which = np.searchsorted(self._starts, rows, side="right") - 1
        for number, stored in enumerate(self._pixels):
            mine = which == number
            out[mine] = stored[rows[mine] - self._starts[number]]
        return out


@dataclass(frozen=True)
class _Rows:
    """The rows of one data set, in either layout.

    Attributes:
        names: of the columns that were read.
        proprio, state: ``[R, 8]`` and ``[R, 26]``.
        actions: ``[R, K, 7]``, K actions from each row on, of which ``steps [R]`` ran before the next row. Today K is
            1; data sets used to have rows at decisions only, and a block of actions in each.
        chosen: ``[R]``, the rows that are samples.
        told: instruction of each sample.
        episodes: their rows.
    """

    names: dict[str, str]
    proprio: Floats
    state: Floats
    actions: Floats
    steps: NDArray[np.int64]
    chosen: NDArray[np.bool_]
    told: list[str]
    episodes: list[slice]

    @classmethod
    def read(cls, reader: LeRobotReader) -> _Rows:
        names = _column_names(reader)
        reader.require(*names.values(), CAMERA)
        found = reader.columns(list(names.values()))
        columns = {key: found[name] for key, name in names.items()}
        count = reader.total_frames
        chosen = columns.get("decision", np.ones(count, bool)).astype(bool)
        steps = columns.get("steps", np.ones(count, np.int64))
        actions = columns["action"].reshape(count, -1, columns["action"].shape[-1])
        return cls(
            names=names,
            proprio=columns["state"],
            state=columns["privileged"],
            actions=actions,
            steps=steps,
            chosen=chosen,
            told=[text for text, wanted in zip(reader.instructions(), chosen, strict=True) if wanted],
            episodes=[slice(e["dataset_from_index"], e["dataset_to_index"]) for e in reader.episodes],
        )

    def chunks(self, horizon: int) -> Floats:
        """The actions from each sample on, ``[N, H, 7]``."""
        parts = [chunked(self.actions[rows], self.steps[rows], horizon)[self.chosen[rows]] for rows in self.episodes]
        return np.concatenate(parts)

    def ran(self) -> Floats:
        """The action of every control step once, ``[T, 7]``."""
        return self.actions[np.arange(self.actions.shape[1]) < self.steps[:, None]]


def _column_names(reader: LeRobotReader) -> dict[str, str]:
    """What is read from a data set: by today's names, or by those of its layout of before."""
    if "privileged.decision" in reader.features:
        return {
            "state": "observation.state",
            "action": "action",
            "privileged": "privileged.state",
            "decision": "privileged.decision",
        }
    label = "action.intended" if "action.intended" in reader.features else "action"
    names = {"state": "observation.state", "action": label, "privileged": "observation.environment_state"}
    has_blocks = len(reader.features.get(label, {"shape": [7]})["shape"]) > 1
    return {**names, "steps": "steps"} if has_blocks or "steps" in reader.features else names


def _check_numbers(reader: LeRobotReader, name: str, kind: str, values: NDArray[Any]) -> None:
    """Raise :class:`InvalidConfigError` unless each row holds so many finite numbers."""
    count, words = _HOLDS[kind]
    wanted = f"should hold {count} finite numbers: {words}"
    if values.shape[-1] != count:
        raise InvalidConfigError(f"{reader.path}: each row of {name} {wanted}; it holds {values.shape[-1]}.")
    bad = ~np.isfinite(values.reshape(len(values), -1)).all(1)
    if bad.any():
        row = int(np.argmax(bad))
        raise InvalidConfigError(
            f"{reader.place(row)}: {name} {wanted}; it holds {_shown(values[row])}. Rows like it: {bad.sum()} of "
            f"{len(bad)}; mend them, or take their episodes out of the data set."
        )


def _check_gripper(reader: LeRobotReader, rows: _Rows, gripper: GripperColumn, robot: str) -> None:
    """Raise :class:`InvalidConfigError` where the last number of an action cannot be what it is said to be."""
    values = rows.actions[..., 6]
    wrong = gripper.wrong(values, robot, reader.is_of_this_gym)
    if wrong.any():
        row, step = (int(i) for i in np.argwhere(wrong)[0])
        raise InvalidConfigError(
            f"{reader.place(row)}: the gripper, the last number of {rows.names['action']}, is {values[row, step]:g} "
            f"({values.min():g} to {values.max():g} in the whole data set), where it should be "
            f"{gripper.expected(robot, reader.is_of_this_gym)}; say what it means by gripper= with one of "
            f"{', '.join(MEANINGS)}."
        )


def _check_decisions(reader: LeRobotReader, rows: _Rows) -> None:
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


class Batches:
    """Samples of demonstrations as tensors, normalised; the same ones for the same seed, whatever happened before.

    Args:
        data: the demonstrations.
        agent: says what it reads and what its chunks mean.
        seed: of the order. Every epoch has its own, in which every sample comes once.
    """

    def __init__(self, data: Demonstrations, agent: TrainableAgent, seed: int) -> None:
        self.data, self.seed = data, seed
        self._per_row = agent.transform({"proprio": data.poses})
        self._per_instruction = agent.transform({"instruction": data.instructions})
        self._actions = agent.normalize_actions(data.actions).astype(np.float32)
        places = data.places()
        self._places = ((places - places.mean(0)) / (places.std(0) + 1e-6)).astype(np.float32)
        self._epoch, self._order = -1, np.zeros(0, np.int64)

    def rows(self, step: int, size: int) -> NDArray[np.int64]:
        """The rows of one step ``[size]``."""
        positions = np.arange(step * size, (step + 1) * size)
        epochs = positions // len(self.data)
        return np.array([self._permutation(int(e))[p % len(self.data)] for e, p in zip(epochs, positions, strict=True)])

    def batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Some samples as tensors: the policy's inputs, ``actions`` ``[B, H, A]`` and ``places`` ``[B, 10]``, fp32."""
        told = self.data.instruction[rows]
        arrays = {
            "pixels": self.data.pixels(rows),
            **{name: values[rows] for name, values in self._per_row.items()},
            **{name: values[told] for name, values in self._per_instruction.items()},
            "actions": self._actions[rows],
            "places": self._places[rows],
        }
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.data))
            self._epoch = epoch
        return self._order


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


def moments(values: ArrayLike) -> Moments:
    """Of ``[N, D]``, over the first axis."""
    array = np.asarray(values, np.float64)
    found = {
        "mean": array.mean(0),
        "std": array.std(0),
        "max": array.max(0),
        "min": array.min(0),
        "p99": np.percentile(array, 99, axis=0),
        "p01": np.percentile(array, 1, axis=0),
    }
    return Moments(**{name: tuple(float(v) for v in column) for name, column in found.items()})


def _check_robot(reader: LeRobotReader, robot: str) -> None:
    found = str(reader.info.get("robot_type"))
    if not found.startswith(robot):
        raise InvalidConfigError(f"The policy is for {robot}; the data set {reader.path} is of {found}.")
