"""The ways in which an episode can fail. Each has one class; ``docs/diagnosis.md`` tells the rules."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class FailureClass:
    """A kind of failure.

    Attributes:
        key: in files, filters and tests.
        label: for people.
        meaning: one sentence.
    """

    key: str
    label: str
    meaning: str


_LIST = (
    FailureClass("lost_again", "placed and lost again", "It had succeeded at some step, but not at the last."),
    FailureClass("wrong_stage", "instruction of another stage", "It did what another stage's instruction tells."),
    FailureClass("wrong_drawer", "wrong drawer", "It moved, or reached for, a drawer that it was not told of."),
    FailureClass("drawer_short", "drawer slipped or stopped short", "The right drawer moved, but not far enough."),
    FailureClass("dropped", "dropped on the way", "It held the object and lost it before it was at its place."),
    FailureClass("placed_beside", "placed beside", "It put the object down, but not where it belongs."),
    FailureClass("out_of_time", "ran out of time while progressing", "The last step came before it was done."),
    FailureClass("wrong_object", "grasped the wrong thing", "It grasped something else, and never the object."),
    FailureClass("pushed_away", "touched and pushed away", "It pushed the object out of its place before it closed."),
    FailureClass("closed_on_nothing", "closed on nothing", "The gripper closed beside the object or hooked no drawer."),
    FailureClass("never_approached", "never approached", "The gripper stayed away from the object or the handle."),
    FailureClass("error", "simulator error", "The simulator did not finish the episode."),
    FailureClass(
        "unknown", "unknown", "What was stored does not tell: states, or contacts that a rule needs, are absent."
    ),
)
#: By key, in the order in which tables show them.
FAILURE_CLASSES: dict[str, FailureClass] = {one.key: one for one in _LIST}
