"""Demonstrations as a policy trains on them: images, proprioception, instruction and chunks of actions.

Samples come from data sets in LeRobot's layout (:mod:`vlaser_gym.evaluation.lerobot_reader`): from the rows at which
the policy decides, where a data set marks them. Their images are decoded once, at the policy's size, into a
memory-mapped array (:mod:`vlaser_gym.training.data.pictures`); everything else is small and kept in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

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
from vlaser_gym.evaluation.lerobot_reader import LeRobotReader, damage_as_sentence
from vlaser_gym.training.data.gripper_column import GripperColumn
from vlaser_gym.training.data.pictures import cached_pixels
from vlaser_gym.training.data.rows import checked_rows
from vlaser_gym.training.data.sources import Source

Floats = NDArray[np.float64]


class Demonstrations:
    """All samples of one or several data sets.

    Args:
        readers: data sets of one robot.
        robot: ``"widowx"`` or ``"google_robot"``.
        horizon: actions per chunk; behind an episode's end its last action is repeated.
        resize: makes the policy's images, unless they are stored at that size already.
        gripper: what the last number of the actions means; with ``sources`` they say it.
        cache: folder of the decoded images; ``None``: in the user's cache.
        say: told if another process is decoding them and this one waits.
        sources: what is known of each data set; ``None``: this gym's own names and meanings.

    Attributes:
        state: ``[N, 26]``, the simulator's; ``None`` where a data set has none.
        parts: numbers of samples of each data set, and ``weights`` how often they come.
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
        sources: Sequence[Source] | None = None,
    ) -> None:
        self.robot, self.horizon = robot, horizon
        given = sources or [Source(str(reader.path), gripper=gripper or GripperColumn()) for reader in readers]
        self.instructions: list[str] = []
        if not any(reader.episodes for reader in readers):
            raise InvalidConfigError(f"The data sets {', '.join(str(r.path) for r in readers)} hold no episode.")
        pairs = [(reader, source) for reader, source in zip(readers, given, strict=True) if reader.episodes]
        rows, self._pixels = [], []
        for reader, source in pairs:
            with damage_as_sentence(reader.path):
                rows.append(checked_rows(reader, source, robot))
                self._pixels.append(cached_pixels(reader, resize, rows[-1].pictured, cache, say))
        self.weights = [source.weight for _, source in pairs]
        self._starts = np.cumsum([0, *(len(pixels) for pixels in self._pixels)])
        self.parts = [
            start + part.eligible(source.first)
            for start, part, (_, source) in zip(self._starts[:-1], rows, pairs, strict=True)
        ]
        self.poses = np.concatenate([part.proprio[part.chosen] for part in rows])
        self.proprio = robot_proprio(self.poses, robot)
        states = [part.state[part.chosen] for part in rows if part.state is not None]
        self.state = np.concatenate(states) if len(states) == len(rows) else None
        self.actions = np.concatenate([self._data_units(part.chunks(horizon), part.gripper) for part in rows])
        self.steps = np.concatenate([self._data_units(part.ran(), part.gripper) for part in rows])
        self.instruction = np.concatenate([self._numbers(part.told) for part in rows])
        self.num_episodes = sum(len(reader.episodes) for reader, _ in pairs)

    def __len__(self) -> int:
        return len(self.proprio)

    def _numbers(self, told: Sequence[str]) -> NDArray[np.int64]:
        """Each sample's instruction by its place among those of all data sets."""
        self.instructions += [text for text in dict.fromkeys(told) if text not in self.instructions]
        number = {text: n for n, text in enumerate(self.instructions)}
        return np.array([number[text] for text in told], np.int64)

    def _data_units(self, actions: Floats, gripper: GripperColumn) -> Floats:
        """The environment's actions in the units that statistics are about."""
        openness = gripper.openness(actions[..., 6:], self.robot)
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
        """The privileged poses ``[N, 10]``: positions of source and target (m) and the source's heading psi.

        The heading comes as cosine and sine of 2 psi and 4 psi, as a gripper does not tell its fingers apart.

        Raises:
            InvalidConfigError: if a data set does not know it.
        """
        if self.state is None:
            raise InvalidConfigError("A data set has no simulator's state, so that nobody knows where things are.")
        source, target = (self.state[:, STATE_FIELDS[name]].astype(np.float64) for name in ("source", "target"))
        matrix = rotations.matrix_from_quaternion(source[:, 3:])
        psi = np.arctan2(matrix[:, 1, 0], matrix[:, 0, 0])
        angles = [f(k * psi) for k in (2, 4) for f in (np.cos, np.sin)]
        return np.concatenate([source[:, :3], target[:, :3], np.stack(angles, -1)], -1)

    def pixels(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images ``[B, S, S, 3]`` of some rows."""
        out = np.empty((len(rows), *self._pixels[0].shape[1:]), np.uint8)
        which = np.searchsorted(self._starts, rows, side="right") - 1
        for number, stored in enumerate(self._pixels):
            mine = which == number
            out[mine] = stored[rows[mine] - self._starts[number]]
        return out


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
        self._places: NDArray[np.float32] | None = None
        if data.state is not None:
            places = data.places()
            mean, std = places.mean(0), places.std(0) + 1e-6
            self._places = ((places - mean) / std).astype(np.float32)
            agent.keep_place_moments(mean, std)
        self._epoch, self._order = -1, np.zeros(0, np.int64)
        counts = [len(part) for part in data.parts]
        weights = data.weights if len(set(data.weights)) > 1 else counts
        is_mixed = weights is data.weights or sum(counts) < len(data)
        self._mixture = Mixture(data.parts, weights, seed) if is_mixed else None

    def rows(self, step: int, size: int) -> NDArray[np.int64]:
        """The rows of one step ``[size]``."""
        positions = np.arange(step * size, (step + 1) * size)
        if self._mixture is not None:
            return self._mixture.rows(positions)
        epochs = positions // len(self.data)
        return np.array([self._permutation(int(e))[p % len(self.data)] for e, p in zip(epochs, positions, strict=True)])

    def batch(self, rows: NDArray[np.int64]) -> dict[str, Tensor]:
        """Some samples as tensors: the policy's inputs, ``actions`` ``[B, H, A]`` and, where they are known, ``places``
        ``[B, 10]``, fp32.
        """
        told = self.data.instruction[rows]
        arrays = {
            "pixels": self.data.pixels(rows),
            **{name: values[rows] for name, values in self._per_row.items()},
            **{name: values[told] for name, values in self._per_instruction.items()},
            "actions": self._actions[rows],
            **({} if self._places is None else {"places": self._places[rows]}),
        }
        return {name: torch.from_numpy(values) for name, values in arrays.items()}

    def _permutation(self, epoch: int) -> NDArray[np.int64]:
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch]).permutation(len(self.data))
            self._epoch = epoch
        return self._order


class Mixture:
    """Samples of several data sets by their weights; within each set every sample comes once before any comes twice.

    Which set is next follows a fixed pattern of :data:`PATTERN` places, in which each set has its share, evenly spread.

    Args:
        parts: numbers of the samples of each set.
        weights: of the sets.
        seed: of the order within each.
    """

    def __init__(self, parts: Sequence[NDArray[np.int64]], weights: Sequence[float], seed: int) -> None:
        self.parts, self.seed = parts, seed
        share = np.array(weights) / np.sum(weights)
        counts = np.maximum(np.round(share * PATTERN).astype(int), 1)
        places = [((np.arange(count) + 0.5) / count, np.full(count, part)) for part, count in enumerate(counts)]
        times, which = (np.concatenate(columns) for columns in zip(*places, strict=True))
        self._pattern = which[np.argsort(times, kind="stable")]
        # The how manieth of its set each place is.
        self._nth = np.zeros(len(self._pattern), np.int64)
        for part in range(len(parts)):
            mine = self._pattern == part
            self._nth[mine] = np.arange(mine.sum())
        self._counts = counts
        self._orders: dict[tuple[int, int], NDArray[np.int64]] = {}

    def rows(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """The samples at some places of the endless sequence ``[n]``."""
        return np.array([self._row(int(position)) for position in positions])

    def _row(self, position: int) -> int:
        cycle, place = divmod(position, len(self._pattern))
        part = int(self._pattern[place])
        epoch, within = divmod(cycle * int(self._counts[part]) + int(self._nth[place]), len(self.parts[part]))
        return int(self.parts[part][self._order(part, epoch)[within]])

    def _order(self, part: int, epoch: int) -> NDArray[np.int64]:
        if (part, epoch) not in self._orders:
            # The epoch before it is over; that of the other sets may go on.
            self._orders = {key: order for key, order in self._orders.items() if key[0] != part}
            self._orders[part, epoch] = np.random.default_rng([self.seed, part, epoch]).permutation(
                len(self.parts[part])
            )
        return self._orders[part, epoch]


#: Places of a mixture's pattern: weights are kept to a thousandth.
PATTERN = 1000


def moments(values: ArrayLike) -> Moments:
    """Moments of ``[N, D]`` over the first axis."""
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
