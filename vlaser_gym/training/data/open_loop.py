"""Open-loop agreement: how much of a data set's actions an agent predicts, and what it reads to do so.

The agent is shown each recorded decision, and its chunk is compared with the actions that were recorded from there on;
nothing is simulated. The same is shown with another instruction of the data set and with a grey image: what is
predicted as well without an input, the agent does not read from it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.agents.base import Agent, agent_code
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import AgentError, InvalidConfigError
from vlaser_gym.training.data.rows import Rows, checked_rows
from vlaser_gym.training.data.sources import Source

Floats = NDArray[np.float64]
Numbers = NDArray[np.int64]
RECORDED, OTHER, GREY = "as recorded", "another instruction", "a grey image"
#: Decisions of an episode that are counted together: names, and the number of the first of each group.
GROUPS = {"first": 0, "second": 1, "later": 2}
#: What a data set can show.
_KNOWN = ("image", "proprio", "instruction")
#: Episodes that the agent is shown at once, and their address: a task that no simulator has.
_AT_ONCE, _TASK = 16, "recorded"
_GREY_LEVEL = 127


@dataclass(frozen=True)
class Agreement:
    """Agreement over a group of decisions.

    Attributes:
        decisions: name of the group, of :data:`GROUPS`.
        shown: :data:`RECORDED`, :data:`OTHER` or :data:`GREY`.
        count: number of decisions.
        translation, rotation: share of the variance of the recorded translations and rotations that is predicted: 1 is
            exact, 0 as good as their mean, below 0 worse. NaN where they are all equal.
        error: mean distance of predicted and recorded translation, m per control step.
    """

    decisions: str
    shown: str
    count: int
    translation: float
    rotation: float
    error: float


@dataclass(frozen=True)
class _Recording:
    """Decisions of one episode: numbers of the samples ``[K]`` and their images ``[K, h, w, 3]``."""

    episode: int
    samples: Numbers
    images: NDArray[np.uint8]


def open_loop(source: Source, robot: str, agent: Agent, episodes: int | None = None) -> list[Agreement]:
    """The agreement of an agent with one data set, by group of decisions and by what it is shown.

    Args:
        source: the data set; with ``first`` only so many decisions of each episode.
        robot: of the agent.
        agent: reads images, proprioception, instructions.
        episodes: so many, evenly drawn; ``None``: all.

    Raises:
        InvalidConfigError: for an agent that reads what data sets do not show; else as training would.
        StorageError: as training would.
        AgentError: if the agent's own code raises, or returns no chunks.
    """
    if unknown := [name for name in agent.observes if name not in _KNOWN]:
        raise InvalidConfigError(
            f"A data set shows {', '.join(_KNOWN)}; this agent also reads {', '.join(unknown)}: choose another agent=."
        )
    rows = checked_rows(source.reader(), source, robot)
    shown = [RECORDED]
    shown += [OTHER] if "instruction" in agent.observes and len(set(rows.told)) > 1 else []
    shown += [GREY] if "image" in agent.observes else []
    numbers, samples, inputs, chunks = _decided(agent, rows, shown, _batches(source, rows, episodes))
    recorded = rows.chunks(chunks.shape[1])[samples]
    groups = np.searchsorted(list(GROUPS.values()), numbers, side="right") - 1
    return [
        _agreement(name, what, chunks[mine], recorded[mine])
        for group, name in enumerate(GROUPS)
        for number, what in enumerate(shown)
        if (mine := (groups == group) & (inputs == number)).any()
    ]


def _agreement(decisions: str, shown: str, chunks: Floats, recorded: Floats) -> Agreement:
    """The agreement of chunks ``[N, H, 7]`` with the recorded ones."""
    translation, rotation = (_explained(chunks[..., part], recorded[..., part]) for part in (slice(3), slice(3, 6)))
    error = np.linalg.norm(chunks[..., :3] - recorded[..., :3], axis=-1).mean()
    return Agreement(decisions, shown, len(chunks), translation, rotation, float(error))


def _explained(chunks: Floats, recorded: Floats) -> float:
    """Share of the variance of ``recorded [N, H, D]`` around its mean ``[H, D]`` that ``chunks`` predict."""
    total = ((recorded - recorded.mean(0)) ** 2).sum()
    return float(1 - ((chunks - recorded) ** 2).sum() / total) if total > 0 else float("nan")


def _batches(source: Source, rows: Rows, episodes: int | None) -> Iterator[list[_Recording]]:
    """Some of a data set's episodes, evenly drawn, with their images, :data:`_AT_ONCE` at a time."""
    starts = np.cumsum([0, *(int(rows.chosen[part].sum()) for part in rows.episodes)])
    count = len(rows.episodes)
    drawn = np.unique(np.linspace(0, count - 1, min(episodes or count, count)).round().astype(np.int64))
    samples = {int(e): np.arange(starts[e], starts[e + 1])[: source.first] for e in drawn if starts[e] < starts[e + 1]}
    pictured = np.zeros(len(rows.pictured), bool)
    pictured[np.flatnonzero(rows.pictured)[np.concatenate(list(samples.values()))]] = True
    batch: list[_Recording] = []
    for (episode, mine), images in zip(samples.items(), source.reader().frames(pictured), strict=True):
        batch.append(_Recording(episode, mine, images))
        if len(batch) == _AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _decided(
    agent: Agent, rows: Rows, shown: Sequence[str], batches: Iterator[list[_Recording]]
) -> tuple[Numbers, Numbers, Numbers, Floats]:
    """All decisions: number within the episode, sample, place in ``shown``, each ``[M]``, and chunk ``[M, H, 7]``."""
    where: list[tuple[int, int, int]] = []
    chunks: list[Floats] = []
    proprio = rows.proprio[rows.chosen]
    texts = list(dict.fromkeys(rows.told))
    another = dict(zip(texts, (*texts[1:], *texts[:1]), strict=True))
    for batch in batches:
        # The same episode with other inputs is another environment: agents remember.
        begun = [Address(_TASK, layout=f"region:{recording.episode}") for recording in batch for _ in shown]
        with agent_code("The agent's reset"):
            agent.reset(np.arange(len(begun)), begun)
        for number in range(max(len(recording.samples) for recording in batch)):
            there = [i for i, recording in enumerate(batch) if number < len(recording.samples)]
            asked = [(i, j, int(batch[i].samples[number])) for i in there for j in range(len(shown))]
            told = ((rows.told[sample], shown[j]) for _, j, sample in asked)
            seen = {
                "image": np.stack([_image(batch[i].images[number], shown[j]) for i, j, _ in asked]),
                "proprio": proprio[[sample for _, _, sample in asked]],
                "instruction": tuple(another[text] if what == OTHER else text for text, what in told),
            }
            lanes = np.array([i * len(shown) + j for i, j, _ in asked])
            chunks.append(_chunk(agent, {name: seen[name] for name in agent.observes}, lanes))
            where += [(number, sample, j) for _, j, sample in asked]
    numbers, samples, inputs = np.array(where).T
    return numbers, samples, inputs, np.concatenate(chunks)


def _chunk(agent: Agent, seen: dict[str, Any], lanes: Numbers) -> Floats:
    """The chunks ``[N, H, 7]`` of one call of the agent."""
    with agent_code("The agent's act"):
        chunk = np.asarray(agent.act(seen, lanes), np.float64)
    if chunk.ndim != 3 or len(chunk) != len(lanes) or chunk.shape[2] != 7:
        raise AgentError(f"act must return one chunk per environment, ({len(lanes)}, H, 7); got {chunk.shape}.")
    return chunk


def _image(recorded: NDArray[np.uint8], shown: str) -> NDArray[np.uint8]:
    return np.full_like(recorded, _GREY_LEVEL) if shown == GREY else recorded
