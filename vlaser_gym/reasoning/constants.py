"""The best constant answer: what scores without looking.

For each wording, object and task the answer is chosen that scores best on the training split; it answers the other
splits. Where training has nothing of that wording, object and task, the next wider group answers.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from vlaser_gym.reasoning.coordinates import decode_mask, number_of, point_text
from vlaser_gym.reasoning.folder import Question
from vlaser_gym.reasoning.scores import score

Key = tuple[str, ...]
#: Groups from the narrowest to the widest. Options belong to what is asked: without them no constant choice is meant.
_GROUPS: tuple[Callable[[Question], Key], ...] = (
    lambda q: (q.kind, q.about, q.task, str(q.wording), *sorted(q.options)),
    lambda q: (q.kind, q.about, q.task, *sorted(q.options)),
    lambda q: (q.kind, q.about, *sorted(q.options)),
    lambda q: (q.kind, q.about),
    lambda q: (q.kind,),
)
#: Questions of a group that a constant is fitted on at most.
_MOST = 200


class ConstantAnswers:
    """Constant answers fitted on the training questions.

    Args:
        training: questions; their own answers are used and nothing else.
    """

    def __init__(self, training: Iterable[Question]) -> None:
        self._groups: list[dict[Key, list[Question]]] = [defaultdict(list) for _ in _GROUPS]
        self._fitted: dict[tuple[int, Key], str] = {}
        for question in training:
            for level, key in enumerate(_GROUPS):
                self._groups[level][key(question)].append(question)

    def answer(self, question: Question) -> str | None:
        """The constant answer to a question; ``None`` where training has nothing of its kind."""
        for level, key in enumerate(_GROUPS):
            group = self._groups[level].get(key(question))
            if group:
                return self._best(level, key(question), group)
        return None

    def _best(self, level: int, key: Key, group: Sequence[Question]) -> str:
        if (level, key) not in self._fitted:
            self._fitted[level, key] = fit(group[:_MOST])
        return self._fitted[level, key]


def fit(group: Sequence[Question]) -> str:
    """The answer that scores best on questions of one form, of those that are tried."""
    return _FITS[group[0].form](group)


def _fit_point(group: Sequence[Question]) -> str:
    """The pixel that is in most masks; of many sizes, that of the first image's."""
    width, height = group[0].sizes[0]
    covered = np.zeros((height, width), np.int64)
    for question in group:
        if "mask" in question.truth and question.sizes[0] == [width, height]:
            covered += decode_mask(question.truth["mask"])
    row, column = divmod(int(covered.argmax()), width)
    return point_text([[number_of(column, width), number_of(row, height)]])


def _fit_box(group: Sequence[Question]) -> str:
    return _best_of([question.answer for question in group], group)


def _fit_choice(group: Sequence[Question]) -> str:
    """The most frequent letter or option, whichever is right more often; of equals the first by name."""
    words = Counter(question.right for question in group)
    letters = Counter(question.answer for question in group if question.lettered)
    ranked = sorted([*words.items(), *letters.items()], key=lambda entry: (-entry[1], entry[0]))
    return ranked[0][0]


def _fit_number(group: Sequence[Question]) -> str:
    unit = group[0].truth.get("unit", "")
    values = np.quantile([float(question.truth["value"]) for question in group], np.linspace(0, 1, 21))
    return _best_of([f"{value:.4g} {unit}" for value in values], group)


def _fit_trace(group: Sequence[Question]) -> str:
    width, height = group[0].sizes[0]
    middle = np.median([question.truth["points"] for question in group], axis=0)
    numbers = [[number_of(int(x), width), number_of(int(y), height)] for x, y in middle]
    return _best_of([point_text(numbers), *(question.answer for question in group[:40])], group)


def _best_of(answers: Sequence[str], group: Sequence[Question]) -> str:
    tried = list(dict.fromkeys(answers))[:60]
    means = [float(np.mean([score(question, answer).value for question in group])) for answer in tried]
    return tried[int(np.argmax(means))]


_FITS: dict[str, Callable[[Sequence[Question]], str]] = {
    "point": _fit_point,
    "box": _fit_box,
    "choice": _fit_choice,
    "number": _fit_number,
    "trace": _fit_trace,
}
