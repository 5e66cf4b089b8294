"""Matched arms: what is stored, and what is computed from pairs of episodes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from fabricate_run import addresses, fabricate_run

from vlaser_gym.cli import load
from vlaser_gym.commands.eval import main
from vlaser_gym.envs.perturbations import PERTURBATIONS, get_perturbation
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.comparison import compare_runs, differing_protocols, holm, load_runs, mcnemar, tango
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.report.robustness import write_robustness
from vlaser_gym.evaluation.robustness import arm_folder, goal_line, measure_drops, plan_arms
from vlaser_gym.evaluation.store import read_records, read_states
from vlaser_gym.evaluation.table import drop_table

EXPERT = ["task=widowx_stack_cube", "agent=expert", "episodes=2", "num_envs=2", "video=0", "report=false"]


def settings(*words: str) -> EvalSettings:
    return EvalSettings.from_config(load("eval", [*EXPERT, *words]))


# ---------------------------------------------------------------------- arms


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of before anybody thought of perturbations."""
    path = tmp_path_factory.mktemp("plain") / "run"
    evaluate(settings(f"run={path}"))
    return path


def stored_bytes(run: Path) -> dict[str, bytes]:
    """Records, summary and states of a run."""
    files = [run / "episodes.jsonl", run / "summary.json", *sorted((run / "states").iterdir())]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def test_the_benign_arm_is_a_plain_run_byte_for_byte(plain: Path, tmp_path: Path) -> None:
    main(load("eval", [*EXPERT, f"run={tmp_path / 'both'}", "perturb=action_noise:hard"]))
    assert stored_bytes(tmp_path / "both" / "benign") == stored_bytes(plain)
    assert "perturb" not in read_records(plain)[0]
    noisy = stored_bytes(tmp_path / "both" / "action_noise-hard")
    assert noisy.keys() == stored_bytes(plain).keys()
    assert all(noisy[name] != data for name, data in stored_bytes(plain).items())
    assert {record["perturb"] for record in read_records(tmp_path / "both" / "action_noise-hard")} == {
        "action_noise:hard"
    }


VISION = ("image_noise", "blur", "jpeg", "exposure", "light_direction", "light_colour", "camera_pose", "focal_length",
          "table_texture", "background")  # fmt: skip


@pytest.mark.slow
def test_an_expert_that_reads_states_does_exactly_the_same_whatever_is_seen(plain: Path, tmp_path: Path) -> None:
    for name in (*VISION, "object_colour", "typos", "wrong_instruction", "proprio_noise"):
        run = tmp_path / name
        evaluate(settings(f"run={run}", f"perturb={name}:hard"))
        for mine, theirs in zip(read_records(run), read_records(plain), strict=True):
            kept, others = read_states(run, mine), read_states(plain, theirs)
            for what, values in others.items():
                if what != "instruction":
                    np.testing.assert_array_equal(kept[what], values, err_msg=f"{name}: {what}")


@pytest.mark.slow
def test_distractors_leave_an_expert_that_reads_states_alone(plain: Path, tmp_path: Path) -> None:
    """They are bodies of the physics, whose rounding changes with them; outcomes do not."""
    evaluate(settings(f"run={tmp_path}", "perturb=distractors:hard"))
    for mine, theirs in zip(read_records(tmp_path), read_records(plain), strict=True):
        assert {name: mine[name] for name in ("success", "steps", "flags", "flags_any", "first_success_step")} == {
            name: theirs[name] for name in ("success", "steps", "flags", "flags_any", "first_success_step")
        }
        kept, others = read_states(tmp_path, mine), read_states(plain, theirs)
        assert len([name for name in kept if name.startswith("object/")]) == 2 + 3
        for what in ("qpos", "action", "object/baked_green_cube_3cm"):
            np.testing.assert_allclose(kept[what], others[what], atol=1e-5)


def test_both_goals_are_stored_and_told(tmp_path: Path) -> None:
    from vlaser_gym.evaluation.diagnosis.run import diagnose_run
    from vlaser_gym.evaluation.store import address_of

    main(load("eval", [*EXPERT, f"run={tmp_path}", "perturb=another_target", "episodes=1", "num_envs=1"]))
    found = measure_drops(tmp_path, [get_perturbation("another_target")])
    assert found.drops[0].original_goal == 0
    assert goal_line(found.drops[0]) == "another_target: at the goal that was told 1 of 1, at the usual goal 0."
    (record,) = read_records(tmp_path / "another_target")
    assert record["flags"]["success"]
    assert not record["flags_any"]["original_goal"]
    assert record["instruction"] == "put the green block on the plate"
    states = read_states(tmp_path / "another_target", record)
    assert len(states["flag/original_goal"]) == record["steps"]
    assert diagnose_run(tmp_path / "another_target", {address_of(record): record})[address_of(record)].failure == ""
    (plain,) = read_records(tmp_path / "benign")
    assert "original_goal" not in plain["flags"]


def test_an_arm_goes_on_with_its_own_perturbation_alone(plain: Path) -> None:
    from vlaser_gym.errors import StorageError

    with pytest.raises(StorageError, match="perturb was None, now 'blur:medium'"):
        evaluate(settings(f"run={plain}", "perturb=blur"))


def test_records_tell_what_the_robot_was_told(tmp_path: Path) -> None:
    evaluate(settings(f"run={tmp_path / 'a'}", "perturb=no_instruction"))
    records = read_records(tmp_path / "a")
    assert {record["instruction"] for record in records} == {""}
    assert {record["perturb"] for record in records} == {"no_instruction"}
    assert set(read_states(tmp_path / "a", records[0])["instruction"].tolist()) == {""}


def test_settings_name_one_perturbation() -> None:
    assert settings("perturb=blur").perturb == "blur:medium"
    with pytest.raises(InvalidConfigError, match="one perturbation"):
        settings("perturb=[blur,jpeg]")
    with pytest.raises(InvalidConfigError, match="one perturbation; got perturb=suite"):
        settings("perturb=suite")
    with pytest.raises(InvalidConfigError, match="needs engine=mujoco"):
        settings("perturb=mass", "engine=simpler")


# ---------------------------------------------------------------------- which arms


def plan(*texts: str, task: str = "widowx") -> tuple[dict[str, tuple[str, ...]], list[str]]:
    arms, left_out = plan_arms(EvalSettings.from_config(load("eval", [f"task={task}", "agent=expert"])), texts)
    return {arm.perturbation.label: arm.tasks for arm in arms}, left_out


def test_an_arm_has_the_tasks_that_there_is_something_to_change_in() -> None:
    arms, left_out = plan("object_moved", "blur:hard")
    assert list(arms) == ["blur:hard", "object_moved:medium"]
    assert len(arms["blur:hard"]) == 4
    assert set(arms["object_moved:medium"]) == {*arms["blur:hard"]} - {"widowx_put_eggplant_in_basket"}
    assert left_out == ["perturb=object_moved has nothing to change in widowx_put_eggplant_in_basket."]


def test_families_leave_out_what_cannot_be_and_single_ones_complain() -> None:
    arms, left_out = plan("execution", task="google_robot_open_drawer")
    assert "object_moved:medium" not in arms
    assert "friction:medium" in arms
    assert ["object_size" in line or "object_moved" in line for line in left_out] == [True, True]
    with pytest.raises(InvalidConfigError, match="nothing to change"):
        plan("object_moved", task="google_robot_open_drawer")


# ---------------------------------------------------------------------- figures


@pytest.fixture
def arms(tmp_path: Path) -> Path:
    """Of 24 layouts of two tasks 18 succeed; blur loses 12 of them, jpeg none, noise wins the other 6."""
    for name, below in (("benign", 18), ("blur-medium", 6), ("jpeg-medium", 18), ("action_noise-medium", 24)):
        config = {} if name == "benign" else {"perturb": name.replace("-", ":")}
        outcomes = {address: address.layout_index < below for address in addresses()}
        fabricate_run(tmp_path / name, outcomes, **config)
    return tmp_path


NAMES = ("blur", "jpeg", "action_noise")


def test_drops_are_those_of_compare(arms: Path) -> None:
    found = measure_drops(arms, [get_perturbation(name) for name in NAMES])
    runs = load_runs([arms / name for name in ("benign", "blur-medium", "jpeg-medium", "action_noise-medium")])
    assert [drop.overall for drop in found.drops] == [two.overall for two in compare_runs(runs).against]
    assert [drop.overall.difference for drop in found.drops] == [-0.5, 0.0, 0.25]
    ps = [mcnemar(24, 0), 1.0, mcnemar(0, 12)]
    np.testing.assert_allclose([drop.overall.p_holm for drop in found.drops], holm(ps))
    assert found.drops[0].tasks[0].interval == tango(12, 0, 24)


def test_a_family_is_the_mean_of_its_perturbations_paired_by_layout(arms: Path) -> None:
    found = measure_drops(arms, [get_perturbation(name) for name in NAMES])
    (vision,) = found.families  # execution has one perturbation alone
    assert vision.label == "vision"
    assert vision.overall.difference == pytest.approx((-0.5 + 0.0) / 2)
    assert vision.overall.n == 2 * 48
    assert vision.overall.layouts == 48
    # Layouts lose half of their two pairs or nothing: 24 that lose against 24 that do not, by hand.
    rng = np.random.default_rng(1)
    losses = np.repeat([-0.5, 0.0], [12, 12])
    means = np.mean([rng.choice(losses, (20000, 24)).mean(1) for _ in range(2)], axis=0)
    np.testing.assert_allclose(vision.overall.interval, np.quantile(means, [0.025, 0.975]), atol=0.02)


def test_the_table_fits_into_80_columns(arms: Path) -> None:
    from rich.console import Console

    found = measure_drops(arms, [get_perturbation(name) for name in NAMES])
    console = Console(width=80, force_terminal=True, color_system=None, record=True)
    console.print(drop_table(found, narrow=True))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    cells = next(line for line in text.splitlines() if "blur:medium" in line).split()
    assert cells[:4] == ["blur:medium", "48", "25.0", "-50.0"]
    assert cells[-4:] == ["24", "0", "<", "0.001"]
    assert "vision (mean)" in text


def test_the_page_holds_table_chart_and_figures(arms: Path) -> None:
    perturbations = [get_perturbation(name) for name in NAMES]
    found = measure_drops(arms, perturbations)
    page = write_robustness(arms, found, perturbations).read_text()
    assert page.count('class="bar') == 4  # three perturbations and a family
    assert "-50.0" in page
    assert "JPEG compression at quality 15 of 100" in page
    figures = json.loads((arms / "robustness.json").read_text())
    assert figures["drops"][0]["overall"]["difference"] == -0.5


def test_compare_tells_that_a_run_was_perturbed(arms: Path) -> None:
    benign, blurred = load_runs([arms / "benign", arms / "blur-medium"])
    assert "perturb differs: none in benign, blur:medium in blur-medium." in differing_protocols(benign, blurred)
    assert not any("perturb" in line for line in differing_protocols(benign, benign))
    assert arm_folder(arms, get_perturbation("blur")) == arms / "blur-medium"


def test_all_perturbations_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    main(load("eval", ["perturb=?"]))
    said = capsys.readouterr().out
    assert all(f"  {name}: " in said for name in PERTURBATIONS)
    assert "  blur: Gaussian blur with a standard deviation of 3 pixels" in said


def test_arms_that_end_where_they_like_cannot_be_paired() -> None:
    with pytest.raises(InvalidConfigError, match="with perturb= leave it out"):
        main(load("eval", [*EXPERT, "perturb=delay", "until=decided", "baseline=0.5"]))


def test_one_time_budget_is_of_all_arms(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [*EXPERT, f"run={tmp_path / 'both'}", "perturb=delay"]
    main(load("eval", [*words, "max_minutes=0.0001"]))
    assert "The time budget ended the run early" in capsys.readouterr().out
    assert not (tmp_path / "both" / "robustness.html").exists()
