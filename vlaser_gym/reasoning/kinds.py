"""Kinds of questions: what they are called, how they are worded, and which moments they can be asked about.

The families are in :mod:`~vlaser_gym.reasoning.grounding`, :mod:`~vlaser_gym.reasoning.spatial`,
:mod:`~vlaser_gym.reasoning.embodied` and :mod:`~vlaser_gym.reasoning.planning`; :data:`KINDS` in
:mod:`vlaser_gym.reasoning.catalogue` holds them all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlaser_gym.reasoning.moments import Moment

#: What an answer is: a point, a box, one of several options, a number with a unit, or several points in order.
Form = Literal["point", "box", "choice", "number", "trace"]


@dataclass(frozen=True)
class Wording:
    """One wording of a kind of question.

    Attributes:
        text: with ``{a}``, ``{b}``, ``{instruction}`` and such for the candidate's words, and ``{options}`` for the
            options in a sentence.
        lettered: the options stand below the question with letters, and the answer is a letter.
    """

    text: str
    lettered: bool = False


@dataclass(frozen=True)
class Candidate:
    """A question that could be asked.

    Attributes:
        about: what answers are balanced within.
        answer: of a choice: the right option.
        moments: whose images are shown.
        words: for the wording.
        truth: of another form: what answers are scored by.
        text: of another form: the answer as it is written.
        fixed: the thing asked about never moves.
        plan: the sub-task that says the answer.
        places: names of the things whose places in the image say the answer, first the one that the
            question is about.
    """

    about: str
    answer: str
    moments: tuple[Moment, ...]
    words: Mapping[str, str] = field(default_factory=dict)
    truth: Mapping[str, Any] = field(default_factory=dict)
    text: str = ""
    fixed: bool = False
    plan: str = ""
    places: tuple[str, ...] = ()


#: Candidates in the moments of one episode, in the order of its steps.
Finder = Callable[[Sequence[Moment]], Iterator[Candidate]]


@dataclass(frozen=True)
class Kind:
    """A kind of question.

    Attributes:
        name: of the kind.
        family: ``grounding``, ``spatial``, ``embodied`` or ``planning``.
        form: of the answer.
        wordings: at least four.
        find: the candidates of an episode.
        mirror: of a choice about ``a`` and ``b``: the right option when the two are named in the other order; an
            option that is not in it stays. ``None``: the order is never changed.
    """

    name: str
    family: str
    form: Form
    wordings: tuple[Wording, ...]
    find: Finder
    mirror: Mapping[str, str] | None = field(default=None, hash=False)


def each(find: Callable[[Moment], Iterator[Candidate]]) -> Finder:
    """Candidates that need one moment only."""

    def found(moments: Sequence[Moment]) -> Iterator[Candidate]:
        """The candidates of all moments, one after another."""
        for moment in moments:
            yield from find(moment)

    return found


def worded(*texts: str, lettered: Sequence[str] = ()) -> tuple[Wording, ...]:
    """Wordings: first those whose answers are words, then those with letters; the last one of ``texts`` ends them."""
    open_ones = [Wording(text) for text in texts]
    return (*open_ones[:-1], *(Wording(text, lettered=True) for text in lettered), open_ones[-1])


def either(words: Sequence[str]) -> str:
    """``"left, right or none"``."""
    return " or ".join(part for part in (", ".join(words[:-1]), words[-1]) if part)
