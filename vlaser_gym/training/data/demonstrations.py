"""Demonstrations as a policy trains on them: pictures, proprioception, instruction and chunks of actions.

Rows come from data sets in LeRobot's layout (:mod:`vlaser_gym.evaluation.lerobot`). Pictures are decoded once, at the
policy's size, into a memory-mapped array beside the data set; everything else is small and kept in memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from vlaser_gym.agents.trainable import ImageResize, TrainableAgent
from vlaser_gym.agents.vlaser import rotation
from vlaser_gym.agents.vlaser.gripper import make_gripper
from vlaser_gym.agents.vlaser.processor import robot_proprio
from vlaser_gym.agents.vlaser.statistics import Moments, Statistics
from vlaser_gym.envs import transforms
from vlaser_gym.envs.vector import STATE_FIELDS
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.lerobot import LeRobotReader

Floats = NDArray[np.float64]


class Demonstrations:
    """All rows of one or several data sets.

    Args:
        readers: data sets of one robot.
        robot: ``"widowx"`` or ``"google_robot"``.
        horizon: actions per chunk; behind an episode's end its last action is repeated.
        resize: makes the policy's pictures, unless they are stored at that size already.

    Attributes:
        proprio: ``[N, 8]`` in environment units.
        actions: ``[N, H, 7]`` in environment units: translation (m), axis-angle (rad), gripper command.
        steps: ``[T, 7]``, the actions of all control steps, each once.
        instructions: the different ones, and ``instruction [N]`` which of them each row has.
        num_episodes: number of episodes.
    """

    def __init__(self, readers: Sequence[LeRobotReader], robot: str, horizon: int, resize: ImageResize) -> None:
        self.robot, self.horizon = robot, horizon
        self.instructions: list[str] = []
        if not any(reader.episodes for reader in readers):
            raise InvalidConfigError(f"The data sets {', '.join(str(r.path) for r in readers)} hold no episode.")
        parts = [self._read(reader) for reader in readers]
        self._pixels = [cached_pixels(reader, resize) for reader in readers]
        self._starts = np.cumsum([0, *(len(pixels) for pixels in self._pixels)])
        self.proprio, self.actions, self.steps, self.state, self.instruction = (
            np.concatenate(part) for part in zip(*parts, strict=True)
        )
        self.num_episodes = sum(len(reader.episodes) for reader in readers)

    def __len__(self) -> int:
        return len(self.proprio)

    def _read(self, reader: LeRobotReader) -> tuple[Floats, Floats, Floats, Floats, NDArray[np.int64]]:
        _check_robot(reader, self.robot)
        names = ("observation.state", "observation.environment_state", "steps")
        label = "action.intended" if "action.intended" in reader.info["features"] else "action"
        columns = reader.columns([*names, label, "task_index"])
        labels = columns[label].reshape(len(columns["steps"]), -1, 7)
        chunks = []
        for episode in reader.episodes:
            rows = slice(episode["dataset_from_index"], episode["dataset_to_index"])
            chunks.append(chunked(labels[rows], columns["steps"][rows], self.horizon))
        ran = np.arange(labels.shape[1]) < columns["steps"][:, None]
        proprio, state = columns["observation.state"], columns["observation.environment_state"]
        return proprio, np.concatenate(chunks), labels[ran], state, self._told(reader, columns["task_index"])

    def _told(self, reader: LeRobotReader, task_index: NDArray[np.int64]) -> NDArray[np.int64]:
        """Each row's instruction by its place among those of all data sets."""
        tasks = reader.tasks
        self.instructions += [text for text in tasks if text not in self.instructions]
        return np.array([self.instructions.index(text) for text in tasks])[task_index]

    def _data_units(self, actions: Floats) -> Floats:
        """The environment's actions in the units that statistics are about."""
        openness = make_gripper(self.robot).openness(actions[..., 6:])
        return np.concatenate([actions[..., :3], rotation.euler_from_axis_angle(actions[..., 3:6]), openness], -1)

    def statistics(self) -> Statistics:
        """Moments and percentiles of the actions of all control steps and of the proprioception of all rows."""
        return Statistics(
            action=moments(self._data_units(self.steps)),
            proprio=moments(robot_proprio(self.proprio, self.robot)),
            num_transitions=len(self.steps),
            num_trajectories=self.num_episodes,
        )

    def places(self) -> Floats:
        """Where things are: ``[N, 10]``, positions of source and target (m) and the source's heading psi.

        The heading comes as cosine and sine of 2 psi and 4 psi, as a gripper does not tell its fingers apart.
        """
        source, target = (self.state[:, STATE_FIELDS[name]].astype(np.float64) for name in ("source", "target"))
        matrix = transforms.quat_to_matrix(source[:, 3:])
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


class Batches:
    """Rows of demonstrations as tensors, normalised; the same rows for the same seed, whatever happened before.

    Args:
        data: the demonstrations.
        agent: says what it reads and what its chunks mean.
        seed: of the order. Every epoch has its own, in which every row comes once.
    """

    def __init__(self, data: Demonstrations, agent: TrainableAgent, seed: int) -> None:
        self.data, self.seed = data, seed
        self._per_row = agent.transform({"proprio": data.proprio})
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
        """Some rows as tensors: the policy's inputs, ``actions`` ``[B, H, A]`` and ``places`` ``[B, 10]``, fp32."""
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


def cached_pixels(reader: LeRobotReader, resize: ImageResize) -> NDArray[np.uint8]:
    """Pictures ``[N, S, S, 3]`` of a data set, memory-mapped; decoded when first asked for."""
    count, size = reader.total_frames, resize.size
    file = reader.path / ".cache" / f"pixels-{size}-{resize.filter}-{count}.npy"
    if not file.is_file():
        file.parent.mkdir(exist_ok=True)
        for old in file.parent.glob(f"pixels-{size}-{resize.filter}-*.npy"):
            old.unlink()
        partial = file.with_suffix(".tmp")
        pixels: Any = np.lib.format.open_memmap(partial, "w+", np.uint8, (count, size, size, 3))
        start = 0
        for frames in reader.frames():
            stop = min(start + len(frames), count)
            pixels[start:stop] = _resized(frames[: stop - start], resize)
            start = stop
        pixels.flush()
        partial.replace(file)
    return np.asarray(np.load(file, mmap_mode="r"))


def _resized(frames: NDArray[np.uint8], resize: ImageResize) -> NDArray[np.uint8]:
    if frames.shape[1:3] == (resize.size, resize.size):
        return frames
    return np.asarray(resize({"image": frames})["pixels"], np.uint8)


def _check_robot(reader: LeRobotReader, robot: str) -> None:
    found = str(reader.info.get("robot_type"))
    if not found.startswith(robot):
        raise InvalidConfigError(f"The policy is for {robot}; the data set {reader.path} is of {found}.")
