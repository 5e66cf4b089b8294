"""Selection of candidates and wordings for questions: balanced, and deterministic for a seed.

Choices are dealt in rounds. A round holds one candidate of every option of what it is about, and all of it gets one
wording: within kind, wording and object every option is right equally often, whatever the scenes make frequent.
Options that are too rare are left out where they would cost too many questions. Rounds alternate the order in which two
things are named, and the letters of right options go round.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlaser_gym.reasoning.kinds import Candidate, Kind, Wording, either

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Dealt:
    """A question with its wording and answer.

    Attributes:
        kind: of question.
        candidate: that it was made of.
        wording: number of its wording among the kind's.
        options: of a choice, in the order in which they are named.
        answer: as it is written.
    """

    kind: Kind
    candidate: Candidate
    wording: int
    options: tuple[str, ...]
    answer: str

    @property
    def lettered(self) -> bool:
        """The answer is the letter of an option."""
        return self.kind.wordings[self.wording].lettered

    @property
    def text(self) -> str:
        """The question, without images."""
        wording: Wording = self.kind.wordings[self.wording]
        text = wording.text.format(**self.candidate.words, options=either(self.options) if self.options else "")
        if not wording.lettered:
            return text
        lines = [f"{letter}. {option}" for letter, option in zip(LETTERS, self.options, strict=False)]
        return "\n".join([text, *lines, "Answer with the letter."])


def generator(seed: int, *names: str) -> np.random.Generator:
    """A generator that depends on a seed and on names, and on nothing else."""
    text = "/".join([str(seed), *names])
    return np.random.default_rng(int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))


def deal(
    candidates: Mapping[Kind, Sequence[Candidate]], count: int, seed: int, wordings: Mapping[str, Sequence[int]]
) -> list[Dealt]:
    """Questions, of every kind about equally many as far as there are candidates.

    Args:
        candidates: of each kind.
        count: how many; fewer come where there are not enough candidates.
        seed: the same candidates and seed give the same questions.
        wordings: numbers of the wordings that may be used, by kind.
    """
    rounds = {}
    for kind, found in candidates.items():
        rng = generator(seed, kind.name)
        by_about = defaultdict(list)
        for candidate in found:
            by_about[candidate.about].append(candidate)
        groups = [
            deque(_rounds(kind, by_about[about], wordings[kind.name], generator(seed, kind.name, about), i))
            for i, about in enumerate(sorted(by_about))
        ]
        rounds[kind] = deque(_in_turns([groups[i] for i in rng.permutation(len(groups))]))
    # Rounds of the kind that has fewest questions, again and again; a round is not cut.
    taken: dict[Kind, list[Dealt]] = {kind: [] for kind in rounds}
    total = 0
    while total < count:
        fitting = [kind for kind, left in rounds.items() if left and len(left[0]) <= count - total]
        if not fitting:
            break
        kind = min(fitting, key=lambda one: len(taken[one]))
        taken[kind] += rounds[kind].popleft()
        total = sum(map(len, taken.values()))
    return [question for questions in taken.values() for question in questions]


def _in_turns(groups: Sequence[deque[list[Dealt]]]) -> Iterable[list[Dealt]]:
    """One round of each group after another, until all are empty."""
    left = [group for group in groups if group]
    while left:
        for group in left:
            yield group.popleft()
        left = [group for group in left if group]


def _rounds(
    kind: Kind, found: Sequence[Candidate], wordings: Sequence[int], rng: np.random.Generator, turn: int
) -> Iterable[list[Dealt]]:
    """The rounds of what is about one thing."""
    order = [found[i] for i in rng.permutation(len(found))]
    if kind.form != "choice":
        for i, candidate in enumerate(order):
            yield [Dealt(kind, candidate, wordings[(turn + i) % len(wordings)], (), candidate.text)]
        return
    queues: dict[str, deque[Candidate]] = defaultdict(deque)
    for candidate in order:
        queues[candidate.answer].append(candidate)
    options = _options({answer: len(queue) for answer, queue in queues.items()})
    for i in range(min((len(queues[option]) for option in options), default=0)):
        wording = wordings[(turn + i) % len(wordings)]
        yield _round(kind, [queues[option].popleft() for option in options], wording, options, i // len(wordings))


def _options(counts: Mapping[str, int]) -> tuple[str, ...]:
    """The options that are asked about: many of them, and many questions when each is right equally often.

    Of the ``k`` most frequent options, ``k`` times the least frequent one's count is the number of questions; what is
    weighed is that number times ``k``. None if there are fewer than two.
    """
    ranked = sorted(counts, key=lambda option: (-counts[option], option))
    weights = {k: k * k * counts[ranked[k - 1]] for k in range(2, len(ranked) + 1)}
    if not weights:
        return ()
    best = max(weights, key=lambda k: (weights[k], k))
    return tuple(sorted(ranked[:best]))


def _round(
    kind: Kind, candidates: Sequence[Candidate], wording: int, options: tuple[str, ...], number: int
) -> list[Dealt]:
    if kind.mirror is not None and number % 2:
        # The same questions with their two things named in the other order.
        candidates = [
            replace(
                one,
                words={**one.words, "a": one.words["b"], "b": one.words["a"]},
                answer=kind.mirror.get(one.answer, one.answer),
                places=one.places[::-1],
            )
            for one in candidates
        ]
    dealt = []
    for i, candidate in enumerate(candidates):
        at = options.index(candidate.answer)
        # The right option stands at place (number + i): each place is right once in every round.
        begin = (at - number - i) % len(options)
        shown = options[begin:] + options[:begin]
        answer = LETTERS[shown.index(candidate.answer)] if kind.wordings[wording].lettered else candidate.answer
        dealt.append(Dealt(kind, candidate, wording, shown, answer))
    return dealt
