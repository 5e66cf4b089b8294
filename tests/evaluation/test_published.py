from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import published_settings
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.tasks.protocols import get_protocol
from vlaser_gym.envs.tasks.variants import ROBOT_COLOURS
from vlaser_gym.errors import UnknownNameError
from vlaser_gym.evaluation.published import published_lines, published_table, published_tables
from vlaser_gym.evaluation.statistics import mean_of_rates, wilson
from vlaser_gym.evaluation.summary import protocol_scores

WIDOWX = {
    "widowx_carrot_on_plate": 134,
    "widowx_put_eggplant_in_basket": 200,
    "widowx_spoon_on_towel": 187,
    "widowx_stack_cube": 80,
}
PAPER: dict[str, Any] = {
    "engine": {"name": "simpler"},
    "look": "original",
    "variant": "default",
    "layouts": "grid",
    "terminate_on_success": False,
}


def summary(counts: dict[str, int], n: int = 240) -> dict[str, Any]:
    return {"tasks": [{"task": task, "n": n, "success": {"count": count}} for task, count in counts.items()]}


def test_tables_are_whole() -> None:
    for name, table in published_tables().items():
        assert table.id == name
        assert table.sources
        assert len({row.model for row in table.rows}) == len(table.rows)
        for row in table.rows:
            assert set(row.values) <= set(table.columns)
            assert all(0 <= value <= 1 for value in [*row.values.values(), row.average or 0])


def test_printed_averages_are_means_of_their_rows() -> None:
    """A misread digit would show here. Two cells of the paper hold rates of grasping; their rows' averages do not."""
    assert published_table("vlaser-widowx").row("Octo-Base").values["cube"] == 0.319
    assert published_table("vlaser-widowx").row("SpatialVLA").values["cube"] == 0.625
    odd = {("vlaser-widowx", "Octo-Base"), ("vlaser-widowx", "SpatialVLA")}
    for name in ("vlaser-widowx", "vlaser-widowx-ablation", "vlaser-embodied-reasoning"):
        for row in published_table(name).rows:
            if row.values and row.average is not None and (name, row.model) not in odd:
                mean = sum(row.values.values()) / len(row.values)
                assert mean == pytest.approx(row.average, abs=0.0011), (name, row.model)
    for row in published_table("vlaser-google-matching").rows:
        if row.model.startswith(("Vlaser", "InternVL")):
            assert sum(row.values.values()) / 3 == pytest.approx(row.average, abs=0.0011)


def test_vlasers_rates_are_counts_of_its_episodes() -> None:
    """240 WidowX episodes; 300, 240, 216 and 825, 600, 378 on the Google Robot. Three printed numbers are none."""
    totals = {
        "vlaser-widowx": dict.fromkeys(("carrot", "eggplant", "spoon", "cube"), 240),
        "vlaser-google-matching": {"coke": 300, "near": 240, "drawer": 216},
        "vlaser-google-aggregation": {"coke": 825, "near": 600, "drawer": 378},
    }
    odd = [
        (name, row.model, column)
        for name, columns in totals.items()
        for row in published_table(name).rows
        if row.model.startswith(("Vlaser", "InternVL"))
        for column, n in columns.items()
        if abs(round(row.values[column] * n) / n - row.values[column]) > 0.00051
    ]
    assert odd == [
        ("vlaser-widowx", "Vlaser-All", "spoon"),
        ("vlaser-google-matching", "Vlaser-All", "drawer"),
        ("vlaser-google-aggregation", "Vlaser-Grounding", "drawer"),
    ]


def test_columns_name_tasks_of_this_gym() -> None:
    for task in WIDOWX:
        assert get_task(task)
        assert [task] in [list(tasks) for tasks in published_table("vlaser-widowx").columns.values()]


def test_yours_next_to_theirs() -> None:
    lines = published_lines(summary(WIDOWX), PAPER)
    low, high = (100 * limit for limit in wilson(134, 240))
    assert lines[0].startswith(f"widowx_carrot_on_plate: yours 55.8 [{low:.1f}, {high:.1f}] - Vlaser-QA (paper) 55.8")
    mean, (low, high) = mean_of_rates([(count, 240) for count in WIDOWX.values()])
    assert lines[-1] == (
        f"mean over 4 tasks: yours {100 * mean:.1f} [{100 * low:.1f}, {100 * high:.1f}] - "
        "Vlaser-QA (paper) 62.6, Vlaser-All (paper) 65.1, pi0 Beta bf16 (open-pi-zero) 69.2"
    )
    assert len(lines) == 5, "the same protocol: no warning"


def test_differing_protocols_are_told() -> None:
    config = {**PAPER, "engine": {"name": "mujoco"}, "look": "builtin", "terminate_on_success": True}
    warning = published_lines(summary(WIDOWX, n=230), config)[-1]
    assert warning == (
        "Not the same protocol: engine mujoco here, simpler there; look builtin here, original there; "
        "terminate on success true here, false there; episodes per task 230 here, 240 there."
    )


#: What Vlaser's scripts run with: 4 of 4 predicted actions, 10 flow steps, fp32.
VLASER: dict[str, Any] = {"act_steps": 4, "horizon": 4, "num_flow_steps": 10, "dtype": "float32", "device": "cpu"}


@pytest.mark.parametrize(("agent", "said"), [
    ({}, None),
    ({"act_steps": 2}, "act steps 2 here, 4 there"),
    ({"num_flow_steps": 5}, "num flow steps 5 here, 10 there"),
    ({"dtype": "bfloat16", "device": "cuda"}, "dtype bfloat16 here, float32 there"),
    ({"density": "flow_sde", "noise_level": 0.5},
     "density flow_sde here, not set there; noise level 0.5 here, not set there"),
])  # fmt: skip
def test_what_the_agent_tells_is_compared_by_value(agent: dict[str, Any], said: str | None) -> None:
    lines = published_lines(summary(WIDOWX), {**PAPER, "agent_settings": {**VLASER, **agent}})
    assert lines[5:] == ([] if said is None else [f"Not the same protocol: {said}."])


def test_the_google_robot_executes_two() -> None:
    counts = {"google_robot_open_drawer": 30, "google_robot_close_drawer": 66}
    config = {**PAPER, "agent_settings": {**VLASER, "act_steps": 2}}
    assert len(published_lines(summary(counts, n=108), config)) == 1
    assert (
        "act steps 4 here, 2 there" in published_lines(summary(counts, n=108), {**config, "agent_settings": VLASER})[-1]
    )


def test_what_environments_are_run_with_is_compared_by_value() -> None:
    """Arguments of the original's environments with another value; those with the same are no departure."""
    given = {"shader_dir": "ibl", "enable_shadow": True, "light_mode": "vertical"}
    lines = published_lines(summary(WIDOWX), {**PAPER, "engine": {"name": "simpler", "env_kwargs": given}})
    assert lines[-1] == (
        "Not the same protocol: enable shadow true here, false there; light mode vertical here, not set there."
    )
    counts = {"google_robot_open_drawer": 30, "google_robot_close_drawer": 66}
    given = {"shader_dir": "ibl", "control_freq": 5, "sim_freq": 513}
    lines = published_lines(summary(counts, n=108), {**PAPER, "engine": {"name": "simpler", "env_kwargs": given}})
    assert lines[-1] == "Not the same protocol: control freq 5 here, 3 there; shader dir ibl here, rt there."


def test_stored_values_count_and_tasks_are_named_where_only_some_differ() -> None:
    settings = {task: published_settings(get_task(task)) for task in WIDOWX}
    assert published_lines(summary(WIDOWX), {**PAPER, "environment_settings": settings})[5:] == []
    settings["widowx_stack_cube"]["max_steps"] = 120
    lines = published_lines(summary(WIDOWX), {**PAPER, "environment_settings": settings})
    assert lines[-1] == "Not the same protocol: max steps 120 here, 60 there (widowx_stack_cube)."


def test_published_settings_are_those_of_the_specification() -> None:
    """Frequencies, controllers, step limits and cameras, written out here a second time."""
    widowx, sink = (published_settings(get_task(t)) for t in ("widowx_stack_cube", "widowx_put_eggplant_in_basket"))
    google, drawer = (published_settings(get_task(f"google_robot_{t}")) for t in ("move_near_v0", "open_drawer"))
    assert (widowx["control_freq"], widowx["sim_freq"], widowx["max_steps"], sink["max_steps"]) == (5, 500, 60, 120)
    assert (google["control_freq"], google["sim_freq"], google["max_steps"], drawer["max_steps"]) == (3, 513, 80, 113)
    assert (widowx["robot"], sink["robot"], google["robot"]) == (
        "widowx", "widowx_sink_camera_setup", "google_robot_static",
    )  # fmt: skip
    assert widowx["control_mode"] == "arm_pd_ee_target_delta_pose_align2_gripper_pd_joint_pos"
    assert google["control_mode"].startswith(
        "arm_pd_ee_delta_pose_align_interpolate_by_planner_gripper_pd_joint_target"
    )
    assert (widowx["camera"], google["camera"]) == ("3rd_view_camera 640x480", "overhead_camera 640x512")
    assert (widowx["shader_dir"], google["shader_dir"], drawer["shader_dir"]) == ("ibl", "ibl", "rt")


def test_part_of_a_benchmark_has_no_mean() -> None:
    lines = published_lines(summary({"widowx_stack_cube": 80}), PAPER)
    assert len(lines) == 1
    assert re.match(r"widowx_stack_cube: yours 33\.3 .* Vlaser-QA \(paper\) 33\.3", lines[0])


def test_pooled_columns() -> None:
    """Vlaser prints open and close drawer as one number."""
    counts = {"google_robot_open_drawer": 30, "google_robot_close_drawer": 66}
    lines = published_lines(summary(counts, n=108), PAPER)
    assert lines[0].startswith("google_robot_open_drawer, google_robot_close_drawer: yours 44.4 ")
    assert "Vlaser-QA (paper) 44.4" in lines[0]
    assert len(lines) == 1
    shortened = published_lines(summary(counts, n=100), PAPER)
    assert "episodes of drawer 200 here, 216 there" in shortened[-1]


def test_nothing_published_nothing_said() -> None:
    assert published_lines(summary({"my_task": 3}), PAPER) == []


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="published table 'x'"):
        published_table("x")
    with pytest.raises(UnknownNameError, match="Vlaser-QA"):
        published_table("vlaser-widowx").row("Vlaser-Q")


@pytest.mark.golden
def test_numbers_against_the_specification(shared: Path) -> None:
    """Rows of the WidowX and Google tables, digit by digit, from the facts they were taken from."""
    text = (shared / "specs" / "vlaser.md").read_text()
    tables = [published_table(f"vlaser-{name}") for name in ("widowx", "google-matching", "google-aggregation")]
    checked = 0
    for line in text.splitlines():
        cells = [cell.strip().strip("*") for cell in line.strip("|").split("|")]
        names = {row.model: row for row in tables[0].rows}
        model = next((m for m in names if cells[0].startswith(m)), None)
        if len(cells) == 7 and model and re.fullmatch(r"[\d.]+", cells[1]):
            assert [100 * v for v in names[model].values.values()] == pytest.approx([float(c) for c in cells[1:5]])
            checked += 1
        google = next((r.model for r in tables[1].rows if cells[0].startswith(r.model + " ")), None)
        if len(cells) == 9 and google:
            for table, part in zip(tables[1:], (cells[1:5], cells[5:9]), strict=True):
                row = table.row(google)
                assert [100 * v for v in (*row.values.values(), row.average)] == pytest.approx([float(c) for c in part])
            checked += 1
    assert checked >= 24


def protocol_run(name: str, success: Callable[[Address], bool]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Summary and settings of a whole protocol."""
    protocol = get_protocol(name)
    records = [
        {"task": a.task, "variant": a.variant, "layout": a.layout, "trial": a.trial, "success": success(a)}
        for a in protocol.episodes
    ]
    rows = [{"task": "google_robot_move_near_v0", "n": 840, "success": {"count": 240}}]
    return {"tasks": rows, "protocol": protocol_scores(protocol, records)}, {**PAPER, "protocol": name}


def test_a_protocols_scores_stand_beside_their_own_tables() -> None:
    """Matching all solved, aggregation not at all: neither may be mixed with the other."""
    lines = published_lines(*protocol_run("vlaser_paper", lambda a: a.variant in ("default", *map(str, ROBOT_COLOURS))))
    text = dict(line.split(" - ") for line in lines)
    yours = {what.split(":")[0]: what.split("yours ")[1].split()[0] for what in text}
    assert yours["visual_matching/move_near"] == yours["visual_matching/pick_coke_can"] == "100.0"
    assert yours["variant_aggregation/move_near"] == yours["variant_aggregation/drawer"] == "0.0"
    near = {what.split(":")[0]: theirs for what, theirs in text.items()}
    assert near["visual_matching/move_near"].startswith("Vlaser-QA (paper) 84.2")
    assert near["variant_aggregation/move_near"].startswith("Vlaser-QA (paper) 78.2")
    assert len(lines) == 4 + 3 + 3, "all episodes of the paper: no warning"


def test_simplerenvs_aggregation_has_fewer_cameras_than_the_papers() -> None:
    lines = published_lines(*protocol_run("variant_aggregation", lambda a: True))
    assert [line.split(":")[0] for line in lines[:-1]] == ["pick_coke_can", "move_near", "drawer"]
    assert "episodes of coke 675 here, 825 there; episodes of near 480 here, 600 there" in lines[-1]


def test_a_run_that_chose_its_end_says_so() -> None:
    assert (
        "end when decided here, after all episodes there"
        in published_lines(summary(WIDOWX), {**PAPER, "until": "decided"})[-1]
    )
