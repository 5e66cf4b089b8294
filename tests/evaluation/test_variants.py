"""Variants against their base scene: the table that a reader would make with a pencil."""

from __future__ import annotations

from io import StringIO
from pathlib import Path

import pytest
from fake_env import make_fake_env
from rich.console import Console
from scipy.stats import binomtest

from vlaser_gym import cli
from vlaser_gym.commands.eval import print_table
from vlaser_gym.evaluation.comparison import tango
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.report import write_report
from vlaser_gym.evaluation.store import address_of, read_records
from vlaser_gym.evaluation.variants import variant_changes

DRAWER, NEAR = "google_robot_open_top_drawer", "google_robot_move_near_v0"
#: Outcomes of four layouts, the same four in the base scene and its variants.
OUTCOMES = {
    (DRAWER, "aggregation"): "1110",
    (DRAWER, "station2"): "1000",
    (DRAWER, "brighter_lighting"): "1111",
    (NEAR, "aggregation"): "1100",
    (NEAR, "alt_background"): "0011",
    (NEAR, "camera_1"): "1100",
}


def settings(folder: Path, *overrides: str) -> EvalSettings:
    words = ["agent._target_=fake_env.Reacher", f"task={DRAWER},{NEAR}", f"run={folder}", "video=0", *overrides]
    return EvalSettings.from_config(cli.load("eval", words))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("variants") / "run"
    evaluate(settings(folder, "protocol=variant_aggregation", "episodes=4"), make_env=make_fake_env)
    return folder


def test_changes_are_those_of_paired_layouts(run: Path) -> None:
    records = {}
    for record in read_records(run):
        address = address_of(record)
        if (kind := (address.task, address.variant)) in OUTCOMES:
            mine = sorted(a.layout_index for a in records if (a.task, a.variant) == kind)
            success = OUTCOMES[kind][len(mine)] == "1"
            records[address] = {**record, "success": success}
    changes = {change.variant: change for change in variant_changes(run, records)}
    assert set(changes) == {variant for _, variant in OUTCOMES if variant != "aggregation"}
    for (task, variant), outcomes in OUTCOMES.items():
        if variant == "aggregation":
            continue
        change, base = changes[variant], OUTCOMES[task, "aggregation"]
        pairs = list(zip(base, outcomes, strict=True))
        lost, won = pairs.count(("1", "0")), pairs.count(("0", "1"))
        assert (change.base, [row.task for row in change.tasks]) == ("aggregation", [task])
        row = change.overall
        assert (row.n, row.a, row.b) == (4, base.count("1") / 4, outcomes.count("1") / 4)
        assert (row.only_a, row.only_b, row.difference) == (lost, won, pytest.approx((won - lost) / 4))
        assert row.interval == pytest.approx(tango(lost, won, 4))
        p = binomtest(won, lost + won, 0.5).pvalue if lost + won else 1.0
        assert row.p == pytest.approx(p)
        assert row.p <= row.p_holm <= 4 * row.p + 1e-9, "corrected among four variants"


def test_episodes_without_a_partner_are_left_out(run: Path) -> None:
    records = {address_of(record): record for record in read_records(run)}
    base = [address for address in records if (address.task, address.variant) == (DRAWER, "aggregation")]
    for address in (base[0], *(a for a in records if (a.task, a.variant) == (NEAR, "aggregation"))):
        del records[address]
    changes = variant_changes(run, records)
    assert {change.overall.n for change in changes} == {3}
    assert {row.task for change in changes for row in change.tasks} == {DRAWER}


def test_colourings_depart_from_the_robots_own(tmp_path: Path) -> None:
    colours = evaluate(settings(tmp_path, "protocol=visual_matching", "episodes=1"), make_env=make_fake_env)
    changes = variant_changes(colours.path, colours.store.records)
    assert [(change.base, change.overall.n, len(change.tasks)) for change in changes] == [("default", 2, 2)] * 3


def test_a_run_of_one_scene_has_none(tmp_path: Path) -> None:
    plain = evaluate(settings(tmp_path, "episodes=1"), make_env=make_fake_env)
    assert variant_changes(plain.path, plain.store.records) == []
    assert "variants" not in plain.summary()


def test_table_summary_and_report_show_them(run: Path) -> None:
    again = evaluate(settings(run, "protocol=variant_aggregation", "episodes=4"), make_env=make_fake_env)
    changes = variant_changes(run, again.store.records)
    assert len(changes) == 6 + 9, "the cabinet's and those of the table, cameras among them"
    assert [row["variant"] for row in again.summary()["variants"]] == [change.variant for change in changes]
    printed = StringIO()
    print_table(again, Console(file=printed, width=160))
    page = write_report(run).read_text()
    assert "Variants against the base scene" in printed.getvalue()
    assert "Variants against the base scene" in page
    for change in changes:
        assert f" {change.variant} " in printed.getvalue()
        assert f'<th scope="row">{change.variant}</th>' in page
