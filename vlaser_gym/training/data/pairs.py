"""The miner: pairs of stored episodes that began in the same state, of which one went better."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, permutations, zip_longest
from typing import Any

import numpy as np
from rich import box
from rich.table import Table

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.episodes import Start, StoredEpisode
from vlaser_gym.settings.algorithms import KINDS


@dataclass(frozen=True)
class Pair:
    """Two episodes by their numbers among those that were mined.

    Attributes:
        win, lose: the better and the worse one.
        kind: one of :data:`KINDS`: success over failure; both succeed, the better one sooner; both fail, the better
            one further along the sub-goals.
    """

    win: int
    lose: int
    kind: str


@dataclass(frozen=True)
class Mined:
    """The preference pairs that were found.

    Attributes:
        pairs: those to train on, in an order of which every beginning is balanced over tasks and layouts.
        rows: what the table says of each task.
    """

    pairs: list[Pair]
    rows: list[dict[str, Any]]

    def table(self, plain: bool = False) -> Table:
        """One row per task: episodes, initial states (and those with several episodes), pairs found and used."""
        table = Table(box=box.ASCII if plain else box.SIMPLE_HEAD, header_style="bold")
        headings = ("task", "episodes", "initial states", "repeated", *(f"{kind} pairs" for kind in KINDS), "used")
        for heading in headings:
            table.add_column(heading, justify="left" if heading == "task" else "right")
        for row in self.rows:
            table.add_row(*(str(row[heading]) for heading in headings))
        return table


def mine_pairs(
    episodes: Sequence[StoredEpisode],
    *,
    kinds: Sequence[str] = KINDS,
    per_layout: int = 16,
    most: int | None = None,
    faster_by: int = 8,
    seed: int = 0,
) -> Mined:
    """Pairs of episodes of the same initial state.

    From every initial state at most ``per_layout`` pairs are taken: those of the first kind first, and among them those
    whose episodes are in the fewest pairs so far. Every task gives as many pairs as the one that has fewest (of those
    that have any).

    Args:
        episodes: of any runs and agents.
        kinds: some of :data:`KINDS`.
        per_layout: pairs of one initial state at most.
        most: pairs in all at most; ``None``: no limit.
        faster_by: control steps by which the better of two successes must come first.
        seed: decides between pairs that are equally good.
    """
    for kind in kinds:
        if kind not in KINDS:
            raise UnknownNameError("kind of pairs", kind, KINDS)
    by_start: dict[Start, list[int]] = {}
    for number, episode in enumerate(episodes):
        by_start.setdefault(episode.start, []).append(number)
    rng = np.random.default_rng(seed)
    found: Counter[tuple[str, str]] = Counter()
    chosen: dict[str, list[list[Pair]]] = {}
    for start in sorted(by_start):
        pairs = list(_pairs(episodes, by_start[start], faster_by))
        found.update((start[0], pair.kind) for pair in pairs)
        wanted = [pair for pair in pairs if pair.kind in kinds]
        chosen.setdefault(start[0], []).append(_spread(wanted, per_layout, rng))
    # Tasks take turns, and within a task its initial states.
    by_task = [_in_turns([starts[i] for i in rng.permutation(len(starts))]) for starts in chosen.values()]
    fewest = min((len(pairs) for pairs in by_task if pairs), default=0)
    taken = _in_turns([pairs[:fewest] for pairs in by_task])[:most]
    return Mined(taken, [_row(task, episodes, by_start, found, taken) for task in chosen])


def explain_nothing(mined: Mined, runs: Iterable[object]) -> InvalidConfigError:
    """The error for data without a pair: the reason and the remedy."""
    where = ", ".join(str(run) for run in runs)
    episodes = sum(row["episodes"] for row in mined.rows)
    repeated = sum(row["repeated"] for row in mined.rows)
    found = sum(row[f"{kind} pairs"] for row in mined.rows for kind in KINDS)
    if not episodes:
        said, remedy = "there is no finished episode", "collect some with store=training trials=8"
    elif not repeated:
        said = f"none of {episodes} episodes shares its initial state with another"
        remedy = "repeat the layouts with trials=8, or give the runs of two agents"
    elif found:
        said, remedy = f"of {found} pairs none is of a kind in algo.kinds", "allow more kinds"
    else:
        said = f"in each of {repeated} repeated initial states all episodes went equally well"
        remedy = "more trials, or more noise of the agent, make them differ"
    return InvalidConfigError(f"No pairs to learn from in {where or 'no run'}: {said}; {remedy}.")


def _pairs(episodes: Sequence[StoredEpisode], numbers: Sequence[int], faster_by: int) -> Iterator[Pair]:
    """All pairs among episodes of one initial state."""
    for win, lose in permutations(numbers, 2):
        a, b = episodes[win], episodes[lose]
        if a.success and not b.success:
            yield Pair(win, lose, "success")
        elif a.success and b.success and _first(a) + faster_by <= _first(b):
            yield Pair(win, lose, "faster")
        elif not a.success and not b.success and a.progress > b.progress:
            yield Pair(win, lose, "further")


def _first(episode: StoredEpisode) -> int:
    return int(episode.record["first_success_step"])


def _spread(pairs: Sequence[Pair], count: int, rng: np.random.Generator) -> list[Pair]:
    """At most ``count`` pairs, better kinds first, each time the one whose episodes were used least."""
    used: Counter[int] = Counter()
    luck = rng.permutation(len(pairs))
    left = sorted(range(len(pairs)), key=lambda i: luck[i])
    chosen: list[Pair] = []
    while left and len(chosen) < count:
        best = min(left, key=lambda i: (KINDS.index(pairs[i].kind), used[pairs[i].win] + used[pairs[i].lose]))
        left.remove(best)
        chosen.append(pairs[best])
        used.update((pairs[best].win, pairs[best].lose))
    return chosen


def _in_turns(lists: Sequence[Sequence[Pair]]) -> list[Pair]:
    """The first of each list, then the second of each, ..."""
    return [pair for pair in chain.from_iterable(zip_longest(*lists)) if pair is not None]


def _row(
    task: str,
    episodes: Sequence[StoredEpisode],
    by_start: dict[Start, list[int]],
    found: Counter[tuple[str, str]],
    taken: Sequence[Pair],
) -> dict[str, Any]:
    mine = [numbers for start, numbers in by_start.items() if start[0] == task]
    return {
        "task": task,
        "episodes": sum(map(len, mine)),
        "initial states": len(mine),
        "repeated": sum(len(numbers) > 1 for numbers in mine),
        **{f"{kind} pairs": found[task, kind] for kind in KINDS},
        "used": sum(episodes[pair.win].task == task for pair in taken),
    }
