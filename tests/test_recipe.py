"""Recipes: what is run is what the file lists, in order, and a failure ends it."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vlaser_gym import cli
from vlaser_gym.commands import recipe
from vlaser_gym.errors import GymError
from vlaser_gym.settings.commands import COMMAND_SETTINGS

TWO = """
stages:
  first: {command: eval, agent: random, task: widowx_stack_cube, episodes: 1, video: 0, report: false, run: "${run}/a"}
  second: {command: compare, runs: ["${run}/a", "${run}/b"]}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "two.yaml"
    path.write_text(TWO)
    return path


def test_stages_are_the_commands_that_the_file_lists(file: Path) -> None:
    first, second = recipe.read_recipe(str(file), "there")
    assert (first.name, first.command) == ("first", "eval")
    config = cli.load("eval", first.words)
    assert (config.agent.name, config.episodes, config.report, config.run) == ("random", 1, False, "there/a")
    assert list(cli.load("compare", second.words).runs) == ["there/a", "there/b"]
    assert shlex.split(str(first))[:3] == ["python", "-m", "vlaser_gym.eval"]


def test_a_stage_s_keys_are_changed_by_its_name(file: Path) -> None:
    first, _ = recipe.read_recipe(str(file), "r", {"first": {"episodes": 3, "engine": {"threads": 2}}})
    config = cli.load("eval", first.words)
    assert (config.episodes, config.engine.threads, config.agent.name) == (3, 2, "random")


def test_a_stage_is_left_out(file: Path) -> None:
    (only,) = recipe.read_recipe(str(file), "r", {"second": None})
    assert (only.name, only.command) == ("first", "eval")


def test_keys_at_the_top_are_changed_by_their_names(file: Path) -> None:
    file.write_text("count: 1\n" + TWO.replace("episodes: 1", 'episodes: "${count}"'))
    assert cli.load("eval", recipe.read_recipe(str(file), "r")[0].words).episodes == 1
    assert cli.load("eval", recipe.read_recipe(str(file), "r", top={"count": 7})[0].words).episodes == 7
    with pytest.raises(GymError, match="cuont"):
        recipe.read_recipe(str(file), "r", top={"cuont": 7})


EACH = """
taught: {qa: {kinds: [embodied, planning], steps: 7}, all: {kinds: null, steps: 8}}
stages:
  vlm: {each: "${taught}", command: train, algo: {name: vlm, steps: "${each.steps}", kinds: "${each.kinds}"}, data: d,
        init: "random:nano", run: "${run}/${each.name}/vlm"}
"""


def test_a_stage_with_each_is_one_stage_per_name(file: Path) -> None:
    file.write_text(EACH)
    changes, top = {"vlm_all": {"algo": {"steps": 9}}}, {"taught": {"more": {"kinds": ["spatial"], "steps": 1}}}
    stages = {stage.name: cli.load("train", stage.words) for stage in recipe.read_recipe(str(file), "r", changes, top)}
    asked = {name: (config.run, config.algo.steps, config.algo.kinds) for name, config in stages.items()}
    assert asked == {
        "vlm_qa": ("r/qa/vlm", 7, ["embodied", "planning"]),
        "vlm_all": ("r/all/vlm", 9, None),
        "vlm_more": ("r/more/vlm", 1, ["spatial"]),
    }


@pytest.mark.parametrize(
    ("text", "changes", "said"),
    [
        (TWO, {"third": {}}, "third"),
        (TWO, {"first": {"epsodes": 3}}, "epsodes"),
        (TWO, {"first": {"episodes": 0}}, "episodes"),
        (TWO.replace("command: eval", "command: evaluate"), {}, "evaluate"),
        (TWO.replace("${run}/a", "${walk}/a"), {}, "walk"),
        (TWO.replace("episodes: 1", "each: [a, b]"), {}, "each of the stage first"),
        (TWO.replace("episodes: 1", "each: {a: 1}"), {}, "each of the stage first"),
        ("stages: [eval]", {}, "stages"),
        ("a: [", {}, "YAML"),
        ("\tx", {}, "YAML"),
    ],
)
def test_what_is_wrong_is_a_sentence_before_anything_runs(
    text: str, changes: dict[str, object], said: str, file: Path
) -> None:
    file.write_text(text)
    with pytest.raises(GymError, match=said):
        recipe.read_recipe(str(file), "r", changes)


def test_recipes_of_the_package_can_be_run() -> None:
    names = [path.stem for path in recipe.RECIPES.glob("*.yaml")]
    assert {"first_rl", "reasoning"} <= set(names)
    for name in names:
        assert {stage.command for stage in recipe.read_recipe(name, "r")} <= COMMAND_SETTINGS.keys()


def test_a_stage_that_fails_ends_it_with_its_status(
    file: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run: list[str] = []
    monkeypatch.setattr(recipe, "_finished", lambda words: run.append(words[2]) or 3)
    with pytest.raises(SystemExit) as stopped:
        cli.run("recipe", recipe.main, cli.named([str(file), "run=x"], "recipe"))
    assert stopped.value.code == 3
    assert run == ["vlaser_gym.eval"]
    said = capfd.readouterr()
    assert "[1/2] first" in said.out
    assert "second" not in said.out
    assert "first ended with status 3" in said.err


def test_the_status_of_a_stage_is_its_process_s() -> None:
    assert recipe._finished([sys.executable, "-c", "raise SystemExit(5)"]) == 5
    assert recipe._finished([sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]) == 128 + 9


@pytest.mark.slow
def test_it_runs_goes_on_and_can_be_typed(file: Path, tmp_path: Path) -> None:
    file.write_text(TWO.split("  second:", maxsplit=1)[0])
    words = [sys.executable, "-m", "vlaser_gym.recipe", str(file), f"run={tmp_path / 'r'}"]
    first = subprocess.run(words, capture_output=True, text=True, check=True)
    records = (tmp_path / "r" / "a" / "episodes.jsonl").read_bytes()
    again = subprocess.run(words, capture_output=True, text=True, check=True)
    assert (tmp_path / "r" / "a" / "episodes.jsonl").read_bytes() == records
    assert "widowx_stack_cube" in first.stdout
    assert "widowx_stack_cube" in again.stdout
