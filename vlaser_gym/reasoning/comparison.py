"""Paired comparison of two models on the same questions.

Differences are B minus A. Intervals are of a bootstrap over layouts, within each kind; p-values are of swapping A and B
on whole layouts. All questions together: unweighted mean over kinds.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.bootstrap import Stratum, mean_over_tasks, stratified_bootstrap
from vlaser_gym.evaluation.comparison import holm
from vlaser_gym.evaluation.statistics import Interval
from vlaser_gym.reasoning.asking import read_answers, read_run_config
from vlaser_gym.reasoning.folder import Question, read_questions, splits_of
from vlaser_gym.reasoning.scores import score, stratum_of

_SWAPS = 9999


@dataclass(frozen=True)
class KindDifference:
    """One kind of question, or all (``kind="all"``).

    Attributes:
        n: questions that both answered, ``layouts``: what they show.
        a, b: mean scores.
        difference: B minus A, with its ``interval``.
        p: two-sided; ``p_holm``: after Holm's correction among the kinds.
    """

    kind: str
    n: int
    layouts: int
    a: float
    b: float
    difference: float
    interval: Interval
    p: float
    p_holm: float


@dataclass(frozen=True)
class AnswerComparison:
    """A against B: names, questions that only one of them answered, a row per kind, and all together."""

    a: str
    b: str
    unpaired: tuple[int, int]
    kinds: tuple[KindDifference, ...]
    overall: KindDifference

    def as_dict(self) -> dict[str, Any]:
        """Dictionary for JSON."""
        return asdict(self)


def compare_answers(a: str | Path, b: str | Path, level: float = 0.95) -> AnswerComparison:
    """Compare two runs of answers to the same folder of questions, question by question.

    Raises:
        StorageError: if one is no run of answers.
        InvalidConfigError: if they share no question.
    """
    sides = [_scores(path) for path in (a, b)]
    common = sorted(sides[0].keys() & sides[1].keys())
    if not common:
        raise InvalidConfigError(
            f"{a} and {b} have no question in common: ask the second one with the first one's data= and split=."
        )
    by_kind: dict[str, list[str]] = defaultdict(list)
    for name in common:
        by_kind[sides[0][name][0].kind].append(name)
    rows, strata = [], []
    for kind in sorted(by_kind):
        questions = [sides[0][name][0] for name in by_kind[kind]]
        values = [[side[name][1] for name in by_kind[kind]] for side in sides]
        stratum = stratum_of(questions, [late - early for early, late in zip(*values, strict=True)])
        strata.append(stratum)
        rows.append(_row(kind, len(questions), [stratum], [float(np.mean(side)) for side in values], level))
    corrected = holm([row.p for row in rows])
    rows = [replace(row, p_holm=p) for row, p in zip(rows, corrected, strict=True)]
    means = [float(np.mean([getattr(row, side) for row in rows])) for side in ("a", "b")]
    overall = _row("all", len(common), strata, means, level)
    labels = (Path(a).name, Path(b).name) if Path(a).name != Path(b).name else (str(a), str(b))
    unpaired = len(sides[0]) - len(common), len(sides[1]) - len(common)
    return AnswerComparison(labels[0], labels[1], unpaired, tuple(rows), overall)


def _scores(path: str | Path) -> dict[str, tuple[Question, float]]:
    """Question and score by a name that holds across folders: its id and its words."""
    config = read_run_config(path)
    folder = Path(config["data"])
    answers = read_answers(path)
    return {
        f"{question.id} {question.text}": (question, score(question, answers[question.id, False]["answer"]).value)
        for question in read_questions(folder, splits_of(folder))
        if (question.id, False) in answers
    }


def _row(kind: str, n: int, strata: Sequence[Stratum], means: Sequence[float], level: float) -> KindDifference:
    p = _swap_test(strata)
    return KindDifference(
        kind=kind,
        n=n,
        layouts=sum(len(stratum.totals) for stratum in strata),
        a=means[0],
        b=means[1],
        difference=mean_over_tasks(strata),
        interval=stratified_bootstrap(strata, level),
        p=p,
        p_holm=p,
    )


def _swap_test(strata: Sequence[Stratum]) -> float:
    """Two-sided p-value of the null that A and B may be swapped on any layout, by random swaps."""
    weighted = np.concatenate([stratum.totals / stratum.trials.sum() for stratum in strata])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], (_SWAPS, len(weighted)))
    swapped = np.abs(signs @ weighted)
    return float((1 + (swapped >= abs(weighted.sum()) - 1e-12).sum()) / (_SWAPS + 1))
