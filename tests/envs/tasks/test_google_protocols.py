"""Protocols against the published tables."""

from __future__ import annotations

from collections import Counter

import pytest

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import GOOGLE_TASKS, get_task, task_names
from vlaser_gym.envs.tasks.protocols import PROTOCOLS, Score, get_protocol
from vlaser_gym.errors import InvalidConfigError, UnknownNameError

TASKS = {**{task.name: task for task in GOOGLE_TASKS}, **{name: get_task(name) for name in task_names()}}
WIDOWX = ("widowx_spoon_on_towel", "widowx_carrot_on_plate", "widowx_stack_cube", "widowx_put_eggplant_in_basket")

#: The tables, row by row: protocol -> score -> (episodes, groups).
PUBLISHED = {
    "visual_matching": {
        **dict.fromkeys(WIDOWX, (24, 1)),
        "pick_coke_can": (4 * 3 * 25, 12),
        "move_near": (4 * 60, 4),
        "open_drawer": (4 * 3 * 9, 12),
        "close_drawer": (4 * 3 * 9, 12),
        "drawer": (2 * 4 * 3 * 9, 24),
        "place_apple_in_closed_top_drawer": (4 * 3 * 9, 4),
    },
    "variant_aggregation": {
        "pick_coke_can": (9 * 75, 27),
        "move_near": (8 * 60, 8),
        "open_drawer": (7 * 27, 21),
        "close_drawer": (7 * 27, 21),
        "drawer": (2 * 7 * 27, 42),
        "place_apple_in_closed_top_drawer": (7 * 27, 7),
        "pick_coke_can_cameras": (150, 6),
        "move_near_cameras": (120, 2),
    },
    "vlaser_paper": {
        **dict.fromkeys(WIDOWX, (240, 1)),
        "visual_matching/pick_coke_can": (300, 1),
        "visual_matching/move_near": (240, 1),
        "visual_matching/drawer": (216, 1),
        "variant_aggregation/pick_coke_can": (825, 1),
        "variant_aggregation/move_near": (600, 1),
        "variant_aggregation/drawer": (378, 1),
    },
}


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_counts_are_the_published_ones(name: str) -> None:
    scores = get_protocol(name).scores
    assert {score.name: (len(score.episodes), len(score.groups)) for score in scores} == PUBLISHED[name]
    for score in scores:
        assert len(set(score.episodes)) == len(score.episodes)
        assert len({len(group) for group in score.groups}) == 1


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_every_episode_exists(name: str) -> None:
    for address in get_protocol(name).episodes:
        task = TASKS[address.task]
        assert address.variant in task.variants
        assert address.layout_kind == "grid"
        assert address.layout_index < task.num_layouts


@pytest.mark.parametrize("name", list(PUBLISHED))
def test_episodes_are_listed_once(name: str) -> None:
    protocol = get_protocol(name)
    union = {address for score in protocol.scores for address in score.episodes}
    assert len(protocol.episodes) == len(union)
    assert set(protocol.episodes) == union
    assert get_protocol(name) is protocol


def test_episodes_cover_whole_grids() -> None:
    """Per task and variant every layout exactly once (WidowX of the paper: ten times)."""
    for name in PUBLISHED:
        grids = Counter((a.task, a.variant) for a in get_protocol(name).episodes)
        for (task, _), count in grids.items():
            trials = 10 if name == "vlaser_paper" and task in WIDOWX else 1
            assert count == trials * TASKS[task].num_layouts
    trials = Counter(a.trial for a in get_protocol("vlaser_paper").episodes if a.task == WIDOWX[0])
    assert trials == dict.fromkeys(range(10), 24)


def score(protocol: str, name: str) -> Score:
    return next(item for item in get_protocol(protocol).scores if item.name == name)


def looks(protocol: str, name: str) -> list:
    seen = dict.fromkeys((a.task, a.variant) for a in score(protocol, name).episodes)
    return [TASKS[task].look(variant) for task, variant in seen]


def test_visual_matching_has_four_colourings_before_a_photograph() -> None:
    colours = {"", *(f"recolor_{x}" for x in ("tabletop_visual_matching_1", "tabletop_visual_matching_2"))}
    colours.add("recolor_cabinet_visual_matching_1")
    for name in ("pick_coke_can", "move_near", "open_drawer", "close_drawer", "place_apple_in_closed_top_drawer"):
        assert {look.robot_colour for look in looks("visual_matching", name)} == colours
        assert all(look.overlay for look in looks("visual_matching", name))
    stations = {look.station for look in looks("visual_matching", "open_drawer")}
    assert stations == {"mk_station_recolor"}


def test_variant_aggregation_changes_what_the_table_says() -> None:
    """Backgrounds, lights, distractors, textures, cameras, counted per task."""
    for name, distractors in (("pick_coke_can", {0, 4, 6}), ("move_near", {0})):
        changed = looks("variant_aggregation", name)
        assert not any(look.overlay or look.robot_colour or look.head_tilt for look in changed)
        assert {look.light for look in changed} == {"default", "slightly_darker", "slightly_brighter"}
        scenes = {look.scene for look in changed}
        assert len(scenes) == 5
        assert sum("alt_background" in scene for scene in scenes) == 2
        assert sum("cabinet" in scene for scene in scenes) == 2
        assert {len(look.distractors) for look in changed} == distractors
    for name in ("open_drawer", "close_drawer", "place_apple_in_closed_top_drawer"):
        changed = looks("variant_aggregation", name)
        assert {look.station for look in changed} == {"mk_station", "mk_station2", "mk_station3"}
        assert {look.light for look in changed} == {"drawer", "drawer_brighter", "drawer_darker"}
        assert len({look.scene for look in changed}) == 3
    tilts = {look.head_tilt for look in looks("variant_aggregation", "pick_coke_can_cameras")}
    assert tilts == {0.9351361, 0.6651361}


def test_the_paper_counts_cameras_in_and_upstream_does_not() -> None:
    for task in ("pick_coke_can", "move_near"):
        paper = set(score("vlaser_paper", f"variant_aggregation/{task}").episodes)
        upstream = set(score("variant_aggregation", task).episodes)
        assert paper - upstream == set(score("variant_aggregation", f"{task}_cameras").episodes)
        assert upstream < paper
    assert not any("place" in item.name for item in get_protocol("vlaser_paper").scores)


def test_a_score_is_the_mean_over_groups() -> None:
    one, two, three = (Address("widowx_stack_cube", layout=k) for k in range(3))
    uneven = Score("x", ((one,), (two, three)))
    assert uneven.value({one: True, two: False, three: True}) == pytest.approx((1 + 0.5) / 2)
    assert Score("x", ((one, two, three),)).value({one: True, two: False, three: True}) == pytest.approx(2 / 3)
    with pytest.raises(InvalidConfigError, match="grid:2"):
        uneven.value({one: True, two: True})


def test_drawer_scores_average_open_and_close() -> None:
    for name in ("visual_matching", "variant_aggregation"):
        success = {a: "open" in a.task for a in get_protocol(name).episodes}
        values = {item: score(name, item).value(success) for item in ("open_drawer", "close_drawer", "drawer")}
        assert values == {"open_drawer": 1.0, "close_drawer": 0.0, "drawer": 0.5}


def test_unknown_protocols_are_refused() -> None:
    assert set(PROTOCOLS) == set(PUBLISHED)
    with pytest.raises(UnknownNameError, match="visual_matching"):
        get_protocol("visual_match")
