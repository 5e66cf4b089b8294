"""The published evaluations as lists of episodes and the averages taken over them.

- ``visual_matching`` and ``variant_aggregation``: SimplerEnv's scripts (4ab7178). A score is the mean over groups
  (robot colourings, variants, orientations, drawers) of the success rates within them; episodes with other cameras are
  run but enter no average of the aggregation.
- ``vlaser_paper``: the evaluation of the Vlaser paper. 240 episodes per WidowX task; on the Google Robot the same
  episodes with the cameras counted in, open and close pooled, and one plain mean per score.

Success of an episode is that of its last step. A protocol can be reduced to a few episodes of each task and variant;
its scores are then means over the same groups, of fewer episodes, and no published numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from math import sqrt

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks.cabinet import DRAWERS
from vlaser_gym.envs.tasks.google_pick import ORIENTATIONS
from vlaser_gym.envs.tasks.variants import ROBOT_COLOURS
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

Episodes = tuple[Address, ...]

_WIDOWX = (
    "widowx_spoon_on_towel",
    "widowx_carrot_on_plate",
    "widowx_stack_cube",
    "widowx_put_eggplant_in_basket",
)
_PICK = tuple(f"google_robot_pick_{orientation}_coke_can" for orientation in ORIENTATIONS)
#: SimplerEnv's scripts and the Vlaser paper take version 0, although the plain name means version 1.
_MOVE_NEAR = ("google_robot_move_near_v0",)
_OPEN = tuple(f"google_robot_open_{drawer}_drawer" for drawer in DRAWERS)
_CLOSE = tuple(f"google_robot_close_{drawer}_drawer" for drawer in DRAWERS)
#: Columns of the published tables that are one task of this gym each and several in protocols.
_PARTS = {
    "google_robot_pick_coke_can": _PICK,
    "google_robot_open_drawer": _OPEN,
    "google_robot_close_drawer": _CLOSE,
}
_PLACE_APPLE = ("google_robot_place_apple_in_closed_top_drawer",)

_COLOURS = tuple(colour or "default" for colour in ROBOT_COLOURS)
_CAMERAS = ("camera_1", "camera_2")
_TABLE = (
    "aggregation",
    "alt_background",
    "alt_background_2",
    "slightly_darker_lighting",
    "slightly_brighter_lighting",
    "table_cabinet1",
    "table_cabinet2",
)
_PICK_VARIANTS = (*_TABLE, "distractors", "distractors_more")
_MOVE_NEAR_VARIANTS = (*_TABLE, "no_distractor")
_CABINET_VARIANTS = (
    "aggregation",
    "modern_bedroom",
    "modern_office",
    "brighter_lighting",
    "darker_lighting",
    "station2",
    "station3",
)
#: Turn of the golden section: its multiples fall evenly between 0 and 1, however many there are.
_GOLDEN = (sqrt(5) - 1) / 2
#: Grid layouts of each task here.
_LAYOUTS = {_MOVE_NEAR: 60, _PLACE_APPLE: 27, _PICK: 25, _OPEN: 9, _CLOSE: 9}


@dataclass(frozen=True)
class Score:
    """A published number: the mean over ``groups`` of the success rate within each."""

    name: str
    groups: tuple[Episodes, ...]

    @property
    def episodes(self) -> Episodes:
        """All episodes, group after group."""
        return tuple(address for group in self.groups for address in group)

    def value(self, success: Mapping[Address, bool]) -> float:
        """The score, 0 to 1.

        Raises:
            InvalidConfigError: if an episode's outcome is missing.
        """
        missing = [address for address in self.episodes if address not in success]
        if missing:
            raise InvalidConfigError(
                f"Score {self.name!r} needs {len(self.episodes)} episodes; got no outcome of {len(missing)} of them, "
                f"first {missing[0]}: run them too."
            )
        rates = [sum(bool(success[address]) for address in group) / len(group) for group in self.groups]
        return sum(rates) / len(rates)


@dataclass(frozen=True)
class Protocol:
    """A published evaluation.

    Attributes:
        episodes: what to run, each address once.
        scores: the numbers that are reported.
    """

    name: str
    scores: tuple[Score, ...]

    @property
    def episodes(self) -> Episodes:
        """The episodes of the protocol in order, each once."""
        return tuple(dict.fromkeys(address for score in self.scores for address in score.episodes))

    def reduced(self, episodes: int) -> Protocol:
        """The same scores over ``episodes`` of each task and variant, or all where it has no more than that.

        Drawn are layouts of trial 0 as :func:`draw_evenly` says, the same in every variant, so that variants stay
        paired; beyond the last layout further trials follow, whole ones and then a drawn one.
        """
        kept = set(_draw_addresses(self.episodes, episodes))
        scores = (
            Score(score.name, tuple(tuple(address for address in group if address in kept) for group in score.groups))
            for score in self.scores
        )
        return replace(self, scores=tuple(scores))


def draw_evenly(count: int, of: int) -> list[int]:
    """Indices of ``count`` out of ``of`` things in a row, without chance: one from each of ``count`` equal stretches.

    The place within the stretches turns by the golden section, beginning in the middle. A fixed place would meet the
    rows of a grid of layouts always in the same column.

    Example:
        Of 5 rows of 5 each, one of every row and one of every column.

        >>> draw_evenly(5, 25)
        [2, 5, 13, 16, 24]
    """
    if count >= of:
        return list(range(of))
    begins = [k * of // count for k in range(count + 1)]
    places = [(0.5 + k * _GOLDEN) % 1 for k in range(count)]
    return [begins[k] + int(places[k] * (begins[k + 1] - begins[k])) for k in range(count)]


def _draw_addresses(episodes: Iterable[Address], count: int) -> list[Address]:
    """So many addresses of each task and variant, trial after trial."""
    trials: dict[tuple[str, str], dict[int, list[Address]]] = {}
    for address in episodes:
        trials.setdefault((address.task, address.variant), {}).setdefault(address.trial, []).append(address)
    drawn: list[Address] = []
    for of_trials in trials.values():
        left = count
        for layouts in of_trials.values():
            drawn += [layouts[k] for k in (draw_evenly(left, len(layouts)) if left else ())]
            left = max(0, left - len(layouts))
    return drawn


def parts_of(tasks: Iterable[str]) -> tuple[str, ...]:
    """The names that protocols have for tasks: the three orientations of the can, the three drawers.

    Example:
        >>> parts_of(["google_robot_move_near_v0", "google_robot_open_drawer"])[1:3]
        ('google_robot_open_top_drawer', 'google_robot_open_middle_drawer')
    """
    return tuple(part for task in tasks for part in _PARTS.get(task, (task,)))


def base_variant(variant: str) -> str:
    """The scene that a variant departs from: the robot's own colour in visual matching, else the plain aggregation."""
    return "default" if variant in _COLOURS else "aggregation"


def _grid(tasks: Iterable[str], variant: str, count: int, trials: int = 1) -> Episodes:
    return tuple(
        Address(task, variant, f"grid:{k}", trial) for task in tasks for trial in range(trials) for k in range(count)
    )


def _groups(tasks: Sequence[str], variants: Sequence[str], count: int) -> tuple[Episodes, ...]:
    """One group per variant and task."""
    return tuple(_grid((task,), variant, count) for variant in variants for task in tasks)


def _widowx(trials: int) -> tuple[Score, ...]:
    return tuple(Score(task, (_grid((task,), "default", 24, trials),)) for task in _WIDOWX)


def _google(
    pick: Sequence[str], near: Sequence[str], cabinet: Sequence[str], prefix: str = ""
) -> tuple[Score, Score, Score, Score, Score]:
    """The five Google Robot scores over variants of the table and of the cabinet."""
    return (
        Score(f"{prefix}pick_coke_can", _groups(_PICK, pick, _LAYOUTS[_PICK])),
        Score(f"{prefix}move_near", _groups(_MOVE_NEAR, near, _LAYOUTS[_MOVE_NEAR])),
        Score(f"{prefix}open_drawer", _groups(_OPEN, cabinet, _LAYOUTS[_OPEN])),
        Score(f"{prefix}close_drawer", _groups(_CLOSE, cabinet, _LAYOUTS[_CLOSE])),
        Score(f"{prefix}place_apple_in_closed_top_drawer", _groups(_PLACE_APPLE, cabinet, _LAYOUTS[_PLACE_APPLE])),
    )


def visual_matching() -> Protocol:
    """SimplerEnv's visual matching: WidowX 24 per task, coke can 300, move near 240, open, close and place 108 each."""
    return Protocol("visual_matching", (*_widowx(1), *_with_drawers(_google(_COLOURS, _COLOURS, _COLOURS))))


def variant_aggregation() -> Protocol:
    """SimplerEnv's variant aggregation (Google Robot only): coke can 675, move near 480, open and close 189 each,
    place 189; and apart from these, with other cameras, coke can 150 and move near 120."""
    pick, near = _google(_CAMERAS, _CAMERAS, ())[:2]
    cameras = Score("pick_coke_can_cameras", pick.groups), Score("move_near_cameras", near.groups)
    scores = _with_drawers(_google(_PICK_VARIANTS, _MOVE_NEAR_VARIANTS, _CABINET_VARIANTS))
    return Protocol("variant_aggregation", (*scores, *cameras))


def _with_drawers(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    """The scores with the mean of open and close behind them."""
    pick, near, opened, closed, place = scores
    return (pick, near, opened, closed, Score("drawer", opened.groups + closed.groups), place)


def vlaser_paper() -> Protocol:
    """The Vlaser paper: WidowX 240 per task; Google Robot, visual matching 300, 240, 216, aggregation 825, 600, 378."""
    matching = _google(_COLOURS, _COLOURS, _COLOURS, "visual_matching/")
    aggregation = _google(
        (*_PICK_VARIANTS, *_CAMERAS), (*_MOVE_NEAR_VARIANTS, *_CAMERAS), _CABINET_VARIANTS, "variant_aggregation/"
    )
    return Protocol("vlaser_paper", (*_widowx(10), *_pooled(matching), *_pooled(aggregation)))


def _pooled(scores: tuple[Score, ...]) -> tuple[Score, ...]:
    """Pick, move near and drawers (open and close), each as one group."""
    pick, near, opened, closed, _ = scores
    drawer = opened.name.replace("open_drawer", "drawer")
    return (
        Score(pick.name, (pick.episodes,)),
        Score(near.name, (near.episodes,)),
        Score(drawer, (opened.episodes + closed.episodes,)),
    )


PROTOCOLS: dict[str, Callable[[], Protocol]] = {
    protocol.__name__: protocol for protocol in (visual_matching, variant_aggregation, vlaser_paper)
}


@cache
def get_protocol(name: str, episodes: int | None = None) -> Protocol:
    """The protocol of that name, reduced to so many episodes of each task and variant if a number is given.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in PROTOCOLS:
        raise UnknownNameError("protocol", name, PROTOCOLS)
    return PROTOCOLS[name]() if episodes is None else get_protocol(name).reduced(episodes)
