"""Candidates of fabricated moments: what is clear is asked, what is not is left out."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlaser_gym.errors import StorageError, UnknownNameError
from vlaser_gym.reasoning.catalogue import KINDS, chosen_kinds
from vlaser_gym.reasoning.kinds import either
from vlaser_gym.reasoning.making import make_questions, plan_addresses, split_of, thought_of
from vlaser_gym.reasoning.moments import Moment, SeenThing, choose_steps
from vlaser_gym.settings.commands import QuestionsSettings


def thing(x: float, y: float, z: float, kind: str = "object", pixel: float = 320.0, area: int = 500) -> SeenThing:
    """A thing at (x, y, z) in world and robot frame; the camera looks along -x, 2 m away."""
    camera = [y, -z, 2.0 - x]
    return SeenThing(kind, kind != "container", area, {"size": [480, 640], "counts": [0, 307200]}, [0, 0, 9, 9],
                     [4, 4], [5, 5], [x, y, z], [x, y, z], camera, [pixel, 240.0])  # fmt: skip


def moment(**changes: Any) -> Moment:
    things = {
        "can": thing(0.1, 0.2, 0.9, pixel=100),
        "apple": thing(0.3, -0.1, 0.91, pixel=400),
        "gripper": thing(0.2, 0.0, 1.1, "gripper", pixel=300),
    }
    fields: dict[str, Any] = {
        "id": "000000", "image": "images/000000.jpg", "width": 640, "height": 480, "look": "builtin",
        "robot": "google_robot", "task": "t", "variant": "default", "layout": "region:1000000", "trial": 0, "run": "r",
        "step": 3, "last": 9, "instruction": "move can near apple", "source": "can", "target": "apple", "drawer": "",
        "done": False, "succeeded": True, "held": "", "openness": 0.734, "direction": "left", "trace": [],
        "openings": {}, "subtasks": ["a", "b", "done"], "subtask": 1, "ending": "", "on_target": None,
        "things": things,
    }  # fmt: skip
    return Moment(**(fields | changes))


def found(kind: str, *moments: Moment) -> list[tuple[str, str]]:
    return [(c.about, c.answer or c.text) for c in KINDS[kind].find(list(moments))]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("side_in_view", "right"),  # the apple's column is 400, the can's 100
        ("depth_in_view", "in front"),  # 1.7 m, 1.9 m
        ("side_for_robot", "right"),  # y -0.1, 0.2
        ("depth_for_robot", "behind"),  # x 0.3, 0.1
    ],
)
def test_relations_of_apple_and_can(kind: str, expected: str) -> None:
    assert ("apple | can", expected) in found(kind, moment())


def test_heights_that_are_alike_are_not_asked_about() -> None:
    assert found("height", moment()) == [("apple | gripper", "below"), ("can | gripper", "below")]


def test_numbers() -> None:
    assert ("apple | can", "36 cm") in found("distance", moment())  # sqrt(0.2^2 + 0.3^2 + 0.01^2) = 0.3607 m
    assert found("gripper_open", moment()) == [("google_robot", "73 percent")]
    opened = moment(openings={"top": 0.0, "middle": 0.123, "bottom": 0.0},
                    things={"handle of the middle drawer": thing(0, 0, 0, "handle"), **moment().things})  # fmt: skip
    assert found("drawer_opening", opened) == [("middle drawer", "12 cm")]
    assert found("open_drawer", opened) == [("drawers", "the middle one")]
    assert found("open_drawer", moment(openings={"top": 0.03, "middle": 0.0, "bottom": 0.0})) == [], "ajar"


def test_nearer_needs_a_clear_lead() -> None:
    # can: (0.1, 0.2, 0.2) away from the gripper, 0.300 m; apple: (0.1, 0.1, 0.19), 0.237 m.
    assert found("nearer", moment()) == [("apple | can", "apple")]
    closer = {**moment().things, "can": thing(0.1, 0.12, 0.9)}  # 0.254 m
    assert found("nearer", moment(things=closer)) == []


def test_counting_needs_to_see_all() -> None:
    cans = {**moment().things, "coke can": thing(0, 0, 0)}
    assert found("how_many", moment()) == [("objects", "2")]
    assert found("how_many", moment(things=cans)) == [("objects", "3"), ("cans", "1")]
    hidden = {**moment().things, "can": thing(0, 0, 0, area=40)}
    assert found("how_many", moment(things=hidden)) == []


def test_holding_needs_contacts_and_places_to_agree() -> None:
    assert found("held", moment(held="can")) == [("apple | can", "the can")]
    assert found("held", moment(held="")) == [("apple | can", "nothing")]
    assert found("held", moment(held=None)) == []


def test_frames_and_ends() -> None:
    first = moment(step=0)
    last = moment(id="000001", step=9, ending="the can was not moved", things={
        **first.things, "gripper": thing(0.1, 0.3, 1.0, "gripper")})  # fmt: skip
    assert found("later", first, last) == [("t", "the second"), ("t", "the first")]
    assert found("later", first, replace(last, things=first.things)) == [], "nothing moved"
    assert found("ending", first, last) == [("move can near apple", "the can was not moved")]
    assert found("ending", last) == []
    assert found("task_done", first, replace(last, done=True)) == [("move can near apple", "yes")]


def test_planning() -> None:
    assert found("next_subtask", moment()) == [("move can near apple", "b")]
    assert found("subtasks_left", moment(subtask=0)) == [("move can near apple", "a; b")]
    assert found("subtasks_left", moment(subtask=2)) == [("move can near apple", "done")]
    assert found("direction", moment()) == [("move can near apple", "left")]
    trace = [[10.0, 10.0], [30.0, 10.0]]
    assert found("trace", moment(trace=trace)) == [("move can near apple", "<point>[[16, 22], [48, 22]]</point>")]
    assert found("trace", moment(trace=[[10.0, 10.0], [12.0, 10.0]])) == [], "it hardly moves"


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("side_in_view", "<ref>apple</ref><point>[[7, 9]]</point><ref>can</ref><point>[[7, 9]]</point>"),
        ("direction", "b<ref>gripper</ref><point>[[7, 9]]</point><ref>can</ref><point>[[7, 9]]</point>"),
        ("next_subtask", ""),
    ],
)
def test_thoughts(kind: str, expected: str) -> None:
    # Pixel 4 of 640 and of 480: its middle is at 7.03 and 9.4 thousandths.
    seen = moment(things={name: moment().things[name] for name in ("apple", "can", "gripper")})
    (candidate, *_) = KINDS[kind].find([seen])
    assert thought_of(candidate) == expected
    hidden = moment(things={**seen.things, "can": thing(0.1, 0.2, 0.9, area=0)})
    assert thought_of(replace(candidate, moments=(hidden,))) == candidate.plan


def test_wordings_take_the_words_of_their_candidates() -> None:
    first = moment(step=0, trace=[[10.0, 10.0], [99.0, 10.0]], on_target=True, openings={"top": 0.2, "middle": 0.0,
                   "bottom": 0.0})  # fmt: skip
    first.things["handle of the top drawer"] = thing(0, 0, 0, "handle")
    last = replace(first, id="000001", step=9, ending="x", things={**first.things, "can": thing(0, 0, 2)})
    for kind in KINDS.values():
        assert len(kind.wordings) >= 4
        for candidate in list(kind.find([first, last])):
            for wording in kind.wordings:
                text = wording.text.format(**candidate.words, options=either(["p", "q"]))
                assert "{" not in text.replace("<point>[[x1, y1], [x2, y2],...]</point>", "")
        assert kind.form != "choice" or any(wording.lettered for wording in kind.wordings)


def test_steps_begin_and_end_the_episode() -> None:
    steps = choose_steps(40, 6, np.random.default_rng(0))
    assert steps[0] == 0
    assert steps[-1] == 40
    assert len(set(steps)) == 6
    assert choose_steps(3, 9, np.random.default_rng(0)) == [0, 1, 2, 3]


class TestSplits:
    def test_by_layout(self) -> None:
        settings = QuestionsSettings(output="x")
        assert split_of(moment(), settings) == "train"
        assert split_of(moment(layout="grid:1"), settings) == "test"

    @pytest.mark.parametrize(
        ("key", "value", "split"),
        [
            ("held_out_robots", "google_robot", "ood_robot"),
            ("held_out_looks", "builtin", "ood_look"),
            ("held_out_looks", "default", "ood_look"),
            ("held_out_objects", "apple", "ood_object"),
        ],
    )
    def test_what_is_held_out_is_not_trained_on(self, key: str, value: str, split: str) -> None:
        settings = QuestionsSettings(**{"output": "x", key: value})
        assert split_of(moment(), settings) is None
        assert split_of(moment(layout="grid:1"), settings) == split

    def test_plans_share_no_layout_and_train_on_nothing_held_out(self) -> None:
        settings = QuestionsSettings(
            output="x", count=4000, held_out_robots="widowx", held_out_looks="aggregation,modern_office"
        )
        plan = [address for _, address in plan_addresses(settings)]
        regions = [a for a in plan if a.layout_kind == "region"]
        grids = [a for a in plan if a.layout_kind == "grid"]
        assert (len(regions), len(grids)) == (160, 40)
        assert len({(a.task, a.layout) for a in plan}) == 200
        assert all(a.task.startswith("google") for a in regions)
        assert {a.variant for a in regions}.isdisjoint({"aggregation", "modern_office"})
        assert any(a.task.startswith("widowx") for a in grids)
        assert plan == [address for _, address in plan_addresses(settings)]
        agents = [agent for agent, _ in plan_addresses(settings)]
        assert 0.2 < agents.count("faulty") / len(agents) < 0.35


def test_a_run_that_is_none_is_found_before_anything_is_written(tmp_path: Path) -> None:
    settings = QuestionsSettings(output=str(tmp_path / "q"), count=20, runs=str(tmp_path / "nothing"))
    with pytest.raises(StorageError, match="no run directory"):
        make_questions(settings)
    assert not (tmp_path / "q").exists()


def test_kinds_by_name() -> None:
    assert {kind.family for kind in chosen_kinds(["planning"])} == {"planning"}
    assert [kind.name for kind in chosen_kinds(["box"])] == ["box"]
    with pytest.raises(UnknownNameError, match="kind of question"):
        chosen_kinds(["boxes"])


def test_enumerations_read_as_sentences() -> None:
    assert either(["a", "b", "c"]) == "a, b or c"
    assert either(["a"]) == "a"
