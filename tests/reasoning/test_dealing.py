"""Balance, whatever the scenes make frequent; and the same for the same seed."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pytest

from vlaser_gym.reasoning.dealing import Dealt, deal
from vlaser_gym.reasoning.kinds import Candidate, Kind, worded

WORDINGS = worded(
    "Is {a} {options} of {b}?", "{a} and {b}: {options}?", "{b} has {a} to the {options}?", lettered=("{a}, {b}?",)
)


def kind(name: str, form: str = "choice", mirror: dict[str, str] | None = None) -> Kind:
    return Kind(name, "made", form, WORDINGS, lambda moments: iter(()), mirror)  # type: ignore[arg-type]


def candidates(shares: dict[str, float], abouts: int, each: int, seed: int = 0) -> list[Candidate]:
    """Answers drawn with these frequencies about several pairs; the words say which."""
    rng = np.random.default_rng(seed)
    names, weights = list(shares), list(shares.values())
    return [
        Candidate(
            f"x{k} | y{k}",
            str(rng.choice(names, p=weights)),
            (),
            {"a": f"x{k}", "b": f"y{k}", "n": str(i)},
            places=(f"x{k}", f"y{k}"),
        )
        for k in range(abouts)
        for i in range(each)
    ]


def all_wordings(*kinds: Kind) -> dict[str, list[int]]:
    return {one.name: list(range(len(one.wordings))) for one in kinds}


@pytest.mark.parametrize("mirror", [None, {"left": "right", "right": "left"}])
def test_no_option_is_right_more_often_than_the_others(mirror: dict[str, str] | None) -> None:
    side = kind("side", mirror=mirror)
    found = candidates({"left": 0.85, "right": 0.15}, abouts=7, each=90)
    dealt = deal({side: found}, 10_000, 0, all_wordings(side))
    assert len(dealt) > 100
    groups: dict[Any, Counter[str]] = defaultdict(Counter)
    places: dict[Any, Counter[int]] = defaultdict(Counter)
    for one in dealt:
        key = one.wording, one.candidate.about
        groups[key][one.candidate.answer] += 1
        places[key][one.options.index(one.candidate.answer)] += 1
    for key, group in groups.items():
        assert set(group.values()) == {group.total() // 2}
        assert set(places[key].values()) == {places[key].total() // 2}, "letters and mentions are balanced as well"


def test_many_options_and_rare_ones() -> None:
    way = kind("way")
    shares = {"up": 0.4, "down": 0.25, "left": 0.2, "right": 0.148, "never": 0.002}
    dealt = deal({way: candidates(shares, abouts=2, each=600)}, 10_000, 0, all_wordings(way))
    for about in ("x0 | y0", "x1 | y1"):
        mine = [one for one in dealt if one.candidate.about == about]
        counts = Counter(one.candidate.answer for one in mine)
        assert set(counts) == {"up", "down", "left", "right"}, "an option that is hardly ever right would cost them all"
        assert len(set(counts.values())) == 1
        assert all(set(one.options) == set(counts) for one in mine)


def test_what_has_one_answer_only_is_not_asked() -> None:
    side = kind("side")
    assert deal({side: candidates({"left": 1.0}, 3, 20)}, 100, 0, all_wordings(side)) == []


def test_mirrored_questions_are_true() -> None:
    side = kind("side", mirror={"left": "right", "right": "left"})
    found = candidates({"left": 0.5, "right": 0.5}, 1, 60)
    truth = {one.words["n"]: one.answer for one in found}
    dealt = deal({side: found}, 1000, 0, all_wordings(side))
    swapped = [one for one in dealt if one.candidate.words["a"] == "y0"]
    assert 0.3 < len(swapped) / len(dealt) < 0.7
    for one in dealt:
        was = truth[one.candidate.words["n"]]
        expected = was if one.candidate.words["a"] == "x0" else {"left": "right", "right": "left"}[was]
        assert one.candidate.answer == expected
        assert one.candidate.places == (one.candidate.words["a"], one.candidate.words["b"])


def test_letters_name_their_options() -> None:
    side = kind("side")
    dealt = deal({side: candidates({"left": 0.5, "right": 0.5}, 2, 60)}, 1000, 0, all_wordings(side))
    lettered = [one for one in dealt if one.lettered]
    assert lettered
    for one in lettered:
        assert f"{one.answer}. {one.candidate.answer}\n" in one.text
    for one in (one for one in dealt if not one.lettered):
        assert one.answer == one.candidate.answer in one.text


def shown(dealt: list[Dealt]) -> list[tuple[str, str]]:
    return [(one.text + one.candidate.words["n"], one.answer) for one in dealt]


def test_the_seed_decides() -> None:
    side, point = kind("side"), kind("point", "point")
    found = {side: candidates({"left": 0.6, "right": 0.4}, 4, 50), point: candidates({"": 1.0}, 4, 50, 1)}
    wordings = all_wordings(side, point)
    assert shown(deal(found, 60, 3, wordings)) == shown(deal(found, 60, 3, wordings))
    assert shown(deal(found, 60, 3, wordings)) != shown(deal(found, 60, 4, wordings))


def test_kinds_share_the_number_and_a_scarce_one_leaves_its_share() -> None:
    side, point = kind("side"), kind("point", "point")
    found = {side: candidates({"left": 0.5, "right": 0.5}, 1, 20), point: candidates({"": 1.0}, 4, 50, 1)}
    counts = Counter(one.kind.name for one in deal(found, 101, 0, all_wordings(side, point)))
    assert counts.total() == 101
    assert counts["side"] <= 20
    even = Counter(one.kind.name for one in deal(found, 12, 0, all_wordings(side, point)))
    assert even == {"side": 6, "point": 6}
