from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from fabricate_run import TASKS, addresses, fabricate_run
from rich.console import Console

from vlaser_gym.cli import run
from vlaser_gym.commands.compare import main, overrides, print_comparison
from vlaser_gym.evaluation.comparison import compare_runs, load_runs, mcnemar, p_text, tango

WHERE = addresses()


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs "weak" (8 of 24), "strong" (16) and a copy of the weak one."""
    folder = tmp_path_factory.mktemp("compare")
    for name, k in (("weak", 8), ("strong", 16), ("its copy, or so", 8)):
        fabricate_run(folder / "runs" / name, {x: x.layout_index < k for x in WHERE})
    return folder


@pytest.fixture
def runs(stored: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(stored)
    return stored


def command(*words: str) -> None:
    run("compare", main, overrides(words))


def test_words_become_settings() -> None:
    assert overrides(["a", "b c", "it's", "count=any"]) == [r"runs=['a','b c','it\'s']", "count=any"]
    assert overrides(["--plan", "65", "70", "power=0.9"]) == ["plan=[65,70]", "power=0.9"]
    assert overrides(["--plan", "65", "70", "85", "--help"]) == ["plan=[65,70,85]", "--help"]
    assert overrides(["--help"]) == ["--help"]


def test_a_folder_may_hold_an_equals_sign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("lr=0.1").mkdir()
    assert overrides(["lr=0.1", "level=0.9"]) == ["runs=['lr=0.1']", "level=0.9"]


def test_two_runs(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("runs/weak", "runs/strong")
    out = capsys.readouterr().out
    low, high = (100 * limit for limit in tango(0, 8, 24))
    row = next(line for line in out.splitlines() if TASKS[0] in line)
    assert [cell.strip() for cell in row.strip("|").split("|")] == [
        TASKS[0], "24", "0, 0", "33.3", "66.7", f"+33.3 [{low:+.1f}, {high:+.1f}]", "0", "8",
        f"{mcnemar(0, 8):.3f}", f"{2 * mcnemar(0, 8):.3f}",
    ]  # fmt: skip
    assert "mean over tasks" in out
    assert "B is better than A (p < 0.001)." in out


def test_crashes_do_not_make_a_run_worse(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """22 of 24 against 16 of 24, but 6 of the 8 failures are crashes: McNemar's p of 6 against 0 is 0.031."""
    where, crashed = addresses(TASKS[:1]), addresses(TASKS[:1])[16:22]
    fabricate_run(runs / "sound", {x: x.layout_index < 22 for x in where})
    fabricate_run(runs / "crashing", {x: x.layout_index < 16 for x in where}, errors=crashed)
    command("sound", "crashing", "report=out/crashes.html", "json=out/crashes.json")
    out = capsys.readouterr().out
    low, high = (100 * limit for limit in tango(0, 0, 18))
    row = next(line for line in out.splitlines() if TASKS[0] in line)
    cells = [TASKS[0], "18 of 24", "0, 6", "91.7", "66.7", f"+0.0 [{low:+.1f}, {high:+.1f}]", "0", "0", "-"]
    assert [cell.strip() for cell in row.strip("|").split("|")] == cells
    assert "worse" not in out
    assert "0.031" not in out
    assert "No verdict: more than 5 % of the pairs hold an episode that the simulator did not finish" in out
    warning = "In 6 of 24 pairs the simulator did not finish an episode (0 of sound, 6 of crashing)."
    assert f"Warning: {warning}" in out
    assert "with it they would be -25.0 points. Above 5 % of the pairs nothing is decided" in out
    page = (runs / "out" / "crashes.html").read_text()
    assert warning in page
    assert "<td>18 of 24</td>" in page
    result = json.loads((runs / "out" / "crashes.json").read_text())["against"][0]["overall"]
    assert (result["p"], result["errors_b"], result["tested"], result["difference"]) == (None, 6, 18, 0.0)


def test_paths_with_commas_quotes_and_blanks(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("runs/weak", "runs/its copy, or so")
    assert "These episodes do not show which is better (p = 1.000)." in capsys.readouterr().out


def test_several_runs_json_and_page(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("runs/weak", "runs/strong", "runs/its copy, or so", "json=out/result.json", "report=out/page.html")
    out = capsys.readouterr().out
    assert out.count("A = weak") == 2
    assert "Report: out/page.html (of weak and strong only)" in out
    result = json.loads((runs / "out" / "result.json").read_text())
    assert [two["b"] for two in result["against"]] == ["strong", "its copy, or so"]
    assert result["against"][0]["overall"]["only_b"] == 16
    assert "Difference, B minus A" in (runs / "out" / "page.html").read_text()


def test_warnings_are_printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fabricate_run(runs / "other", dict.fromkeys(WHERE[:5], True), look="original")
    command("runs/weak", "other")
    out = capsys.readouterr().out
    assert "Warning: look differs: builtin in weak, original in other." in out
    assert "Warning: Left out for want of a partner: 43 episodes of weak, 0 of other." in out


def test_the_page_says_what_was_printed(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Intervals of the level asked for, and p-values corrected for all runs, not for the two on the page."""
    command("runs/weak", "runs/strong", "runs/its copy, or so", "level=0.5", "report=out/half.html")
    row = next(line for line in capsys.readouterr().out.splitlines() if TASKS[0] in line)
    *_, difference, _, _, p, p_holm = (cell.strip() for cell in row.strip("|").split("|"))
    page = (runs / "out" / "half.html").read_text()
    found = re.search(r"carrot on plate</th>(.*?)</tr>", page, re.DOTALL)
    assert found
    cells = " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())
    assert difference in cells
    assert cells.endswith(f"{p} {p_holm}")
    assert p_holm == f"{4 * mcnemar(0, 8):.3f}", "two tasks of two pairs of runs"
    assert "Brackets are 50 % intervals" in page
    assert "with 50 % interval" in page
    assert "95 %" not in page
    assert "Two of 3 compared runs are shown; p (Holm) is corrected for all." in page


def test_help_says_what_level_decides(capsys: pytest.CaptureFixture[str]) -> None:
    command("--help")
    assert "p (Holm) up to 1 - level" in capsys.readouterr().out


@pytest.mark.parametrize("rates", [("65", "85"), ("0.65", "0.85")])
def test_a_plan(rates: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    command("--plan", *rates)
    out = capsys.readouterr().out
    assert "tell 65 % from 85 %" in out
    assert re.search(r"unpaired\s*\|\s*-\s*\|\s*73\s*\|", out)
    assert re.search(r"paired, correlation 0\.4\s*\|\s*25\.9 %\s*\|\s*5\d\s*\|", out)


def test_ranking_against_real_rates(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "real.yaml").write_text(f"p: {{{TASKS[0]}: 0.9}}\nq: {{{TASKS[0]}: 0.4}}\n")
    command("runs/weak", "runs/strong", "real=real.yaml", "policies=[p,q]")
    out = capsys.readouterr().out
    assert re.search(rf"{TASKS[0]}\s*\|\s*2\s*\|\s*0\.5000\s*\|\s*-1\.000", out)


def test_ranking_says_which_failures_are_crashes(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (runs / "real.yaml").write_text(f"p: {{{TASKS[0]}: 0.9}}\nq: {{{TASKS[0]}: 0.4}}\n")
    fabricate_run(runs / "crashed", dict.fromkeys(WHERE, False), errors=WHERE[:3])
    command("runs/weak", "crashed", "real=real.yaml", "policies=[p,q]")
    assert "Warning: 3 of 48 episodes of crashed are errors: failures here." in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["runs/weak"], "A comparison needs two runs or more; got 1."),
        ([], "A comparison needs two runs or more; got 0."),
        (["runs/weak", "runs/weak"], "given twice"),
        (["runs/weak", "runs/gone"], "runs/gone is no run directory"),
        (["runs/weak", "runs/strong", "count=never"], "Unknown way to count 'never'"),
        (["runs/weak", "runs/strong", "level=95"], "level must be above 0 and below 1; got 95.0."),
        (["runs/weak", "runs/strong", "levle=0.9"], "Unknown key 'levle'"),
        (["runs/weak", "runs/strong", "json=runs"], "Cannot write json=runs: expected a file"),
        (["runs/weak", "runs/strong", "report=real.yaml/page"], "Cannot write report=real.yaml/page"),
        (
            ["runs/weak", "runs/strong", "power=0.9"],
            "reads only runs, count, level, json, report; got power=0.9: leave it",
        ),
        (["runs/weak", "runs/strong", "policies=[p,q]"], "got policies=['p', 'q']: leave it out"),
        (["runs/weak", "runs/strong", "real=real.yaml", "json=x.json"], "real= reads only runs, real, policies, count"),
        (["runs/weak", "runs/strong", "real=real.yaml", "report=x"], "got report=x: leave it out"),
        (["runs=x"], "runs must be a list such as runs=[A,B]; got x."),
        (["plan=65"], "plan must be a list such as plan=[A,B]; got 65."),
        (["--plan", "65", "85", "json=plan.json"], "--plan reads only plan, power, alpha; got json=plan.json"),
        (["--plan", "65", "85", "report=page.html"], "got report=page.html: leave it out"),
        (["runs/weak", "--plan", "65", "85"], "got runs=['runs/weak']: leave it out"),
        (["--plan", "65", "85", "90"], "--plan takes two success rates"),
        (["--plan", "0.65", "85"], "both as shares (--plan 0.65 0.7); got 0.65 85."),
        (["runs/weak", "runs/strong", "real=simplerenv-real"], "got 0 names for 2 runs"),
        (["--plan", "65"], "--plan takes two success rates"),
        (["--plan"], "--plan takes two success rates"),
        (["--plan", "65", "x"], "plan"),
        (["--plan", "65", "65"], "two different rates"),
        (["--nonsense"], "Cannot read '--nonsense'"),
    ],
)
def test_mistakes_get_a_sentence(
    runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], sentence: str
) -> None:
    with pytest.raises(SystemExit) as stop:
        command(*words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.startswith("Error: ")
    assert error.count("\n") == 1


def test_at_80_columns_every_name_stands_on_one_line_and_every_number_is_there(tmp_path: Path) -> None:
    names = ["google_robot_place_apple_in_closed_top_drawer", "google_robot_close_middle_drawer", *TASKS]
    where = addresses(names[2:], 6, 2)
    a, b = ({x: x.layout_index < k for x in where} for k in (2, 5))
    fabricate_run(tmp_path / "a", a, errors=where[-1:])
    fabricate_run(tmp_path / "b", b)
    runs = load_runs([tmp_path / "a", tmp_path / "b"])
    compared = compare_runs(runs)
    renamed = [replace(row, task=name) for row, name in zip(compared.against[0].tasks * 2, names, strict=True)]
    wide = replace(compared, against=(replace(compared.against[0], tasks=tuple(renamed)),))
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    print_comparison(wide, console)
    lines = [line for line in console.file.getvalue().splitlines() if not line.startswith(("Warning", "No verdict"))]
    assert max(map(len, lines)) <= 80
    assert not any("…" in line for line in lines)
    (apple,) = [i for i, line in enumerate(lines) if "place apple in closed top drawer" in line]
    first, second, third = (line.split() for line in lines[apple : apple + 3])
    row = compared.against[0].tasks[0]
    low, high = (f"{100 * limit:+.1f}" for limit in row.interval or ())
    assert first[-5:] == [
        "12",
        f"{100 * row.a:.1f}",
        f"{100 * (row.difference or 0):+.1f}",
        str(row.only_a),
        p_text(row.p),
    ]
    assert second == ["(6)", f"{100 * row.b:.1f}", f"[{low},", str(row.only_b), p_text(row.p_holm)]
    assert third == [f"{high}]"]
