"""The WidowX's variant aggregation: what it is made of, and its scores recomputed by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fabricate_run import addresses, fabricate_run
from omegaconf import OmegaConf
from rich.console import Console

from vlaser_gym.cli import load
from vlaser_gym.commands.eval import aggregated, main
from vlaser_gym.envs.perturbations import get_perturbation
from vlaser_gym.envs.perturbations.protocols import PERTURBED_PROTOCOLS, WIDOWX_VARIANT_AGGREGATION
from vlaser_gym.envs.tasks import PRESETS, get_task
from vlaser_gym.envs.tasks.protocols import PROTOCOLS
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.aggregation import aggregate, write_scores
from vlaser_gym.evaluation.robustness import arm_folder
from vlaser_gym.evaluation.table import aggregate_table

CARROT, SINK = "widowx_carrot_on_plate", "widowx_put_eggplant_in_basket"
PROTOCOL = WIDOWX_VARIANT_AGGREGATION


def test_it_has_the_groups_of_the_original_and_no_others_name() -> None:
    assert list(PROTOCOL.groups) == ["base", "backgrounds", "lighting", "distractors", "table textures", "cameras"]
    assert PROTOCOL.apart == ("cameras",)
    assert PROTOCOL.tasks == PRESETS["widowx"]
    assert len(set(PROTOCOL.labels)) == len(PROTOCOL.labels) == 10
    assert [one.label for one in PROTOCOL.perturbations] == list(PROTOCOL.labels)
    assert {one.family for one in PROTOCOL.perturbations} == {"vision"}
    assert not set(PERTURBED_PROTOCOLS) & set(PROTOCOLS)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Of 24 layouts the arms solve 12, 6, 0, ...; the sink has no distractors."""
    for number, label in enumerate((None, *PROTOCOL.labels)):
        folder = arm_folder(tmp_path, None if label is None else get_perturbation(label))
        tasks = [CARROT, SINK] if label is None or get_perturbation(label).applies(get_task(SINK)) else [CARROT]
        solved = {CARROT: 12 - number, SINK: 24 - 2 * number}
        outcomes = {a: a.layout_index < solved[a.task] for a in addresses(tasks)}
        fabricate_run(folder, outcomes, **({} if label is None else {"perturb": label}))
    return tmp_path


def test_the_scores_by_hand(run: Path) -> None:
    carrot, sink, both = aggregate(run, PROTOCOL)
    # Arms: base 0; backgrounds 1 2; lighting 3 4; distractors 5 6; tables 7 8; cameras 9 10.
    rates = {k: (12 - k) / 24 for k in range(11)}
    assert carrot.groups == pytest.approx(
        {
            "base": rates[0],
            "backgrounds": (rates[1] + rates[2]) / 2,
            "lighting": (rates[3] + rates[4]) / 2,
            "distractors": (rates[5] + rates[6]) / 2,
            "table textures": (rates[7] + rates[8]) / 2,
            "cameras": (rates[9] + rates[10]) / 2,
        }
    )
    assert carrot.value == pytest.approx(np.mean([rates[k] for k in range(9)]))
    assert (carrot.arms, carrot.episodes) == (9, 9 * 24)
    assert sink.groups["distractors"] is None
    assert sink.value == pytest.approx(np.mean([(24 - 2 * k) / 24 for k in (0, 1, 2, 3, 4, 7, 8)]))
    assert (sink.arms, sink.episodes) == (7, 7 * 24)
    assert both.value == pytest.approx((carrot.value + sink.value) / 2)
    assert both.episodes == 16 * 24


def test_intervals_draw_layouts_again_which_all_arms_share(run: Path) -> None:
    carrot = aggregate(run, PROTOCOL)[0]
    per_layout = np.array([np.mean([k < 12 - arm for arm in range(9)]) for k in range(24)])
    rng = np.random.default_rng(3)
    means = rng.choice(per_layout, (40000, 24)).mean(1)
    assert carrot.interval == pytest.approx(np.quantile(means, [0.025, 0.975]), abs=0.02)
    # Were all episodes independent, it would be three times as narrow.
    assert carrot.interval[1] - carrot.interval[0] > 0.25


def test_the_table_fits_into_80_columns_and_the_scores_are_kept(run: Path) -> None:
    rows = aggregate(run, PROTOCOL)
    console = Console(width=80, force_terminal=True, color_system=None, record=True)
    console.print(aggregate_table(rows, PROTOCOL))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    cells = {line.split("  ")[0].strip(): line.split()[-3:] for line in text.splitlines() if line.strip()}
    assert cells["base"] == ["50.0", "100.0", "75.0"]
    assert cells["distractors"] == ["27.1", "-", "27.1"]
    assert cells["score"] == [f"{100 * row.value:.1f}" for row in rows]
    assert cells["arms"] == ["9", "7", "16"]
    kept = json.loads(write_scores(run, PROTOCOL, rows).read_text())
    assert kept["protocol"] == "widowx_variant_aggregation"
    assert kept["scores"][0]["value"] == pytest.approx(rows[0].value)


def test_the_command_runs_its_arms_and_nothing_else() -> None:
    words = ["protocol=widowx_variant_aggregation", "agent=expert"]
    config, protocol = aggregated(load("eval", words))
    assert protocol is PROTOCOL
    assert config.protocol is None
    assert OmegaConf.to_container(config.perturb) == list(PROTOCOL.labels)
    assert OmegaConf.to_container(config.task) == list(PRESETS["widowx"])
    for more, said in (
        ("episodes=3", "got episodes=3: leave episodes= out"),
        ("perturb=blur", "got perturb=blur"),
        ("task=google_robot_open_drawer", "got task=google_robot_open_drawer"),
    ):
        with pytest.raises(InvalidConfigError, match=said):
            main(load("eval", [*words, more]))
    one, _ = aggregated(load("eval", [*words, "task=widowx_stack_cube"]))
    assert OmegaConf.to_container(one.task) == ["widowx_stack_cube"]
