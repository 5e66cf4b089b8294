from __future__ import annotations

import io
from typing import Any

from fabricate_run import plain_record
from rich.console import Console
from test_summary import CARROT, CUBE, RECORDS

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task, task_names
from vlaser_gym.evaluation import table as table_module
from vlaser_gym.evaluation.summary import summarise
from vlaser_gym.evaluation.table import EpisodeProgress, make_console, result_table, short_name, subgoal_table


def text(make: Any = result_table, width: int = 160, plain: bool = True, ending: str = "truncated") -> str:
    console = Console(file=io.StringIO(), width=width)
    summary = summarise([record | {"ending": ending} for record in RECORDS], [CARROT, CUBE])
    console.print(make(summary, {CARROT.name: 41.26}, plain) if make is result_table else make(summary, plain))
    return console.file.getvalue()  # type: ignore[attr-defined]


def rows(printed: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in printed.splitlines() if "|" in line]
    return {cells[0]: cells[1:] for cells in lines}


def test_episodes_stopped_at_success_do_not_tell_the_last_step() -> None:
    printed = rows(text(ending="terminated"))
    assert printed[CUBE.name][1] == printed["mean over tasks"][1] == "-"
    assert printed[CUBE.name][2] == "100.0 [20.7, 100.0]"


def test_a_row_per_task_and_their_mean() -> None:
    printed = rows(text())
    assert printed[CARROT.name] == [
        "4 (1 errors)",
        "25.0 [4.6, 69.9]",  # Wilson's interval of 1 of 4
        "50.0 [15.0, 85.0]",  # and of 2 of 4
        "60.0",  # of the three that the simulator finished
        "25.0",
        "41.3",
    ]
    assert printed[CUBE.name] == ["1", "100.0 [20.7, 100.0]", "100.0 [20.7, 100.0]", "60.0", "50.0", "-"]
    assert printed["mean over tasks"][0] == "5"
    assert printed["mean over tasks"][1].startswith("62.5 [")


def test_subgoals_have_a_table() -> None:
    printed = rows(text(subgoal_table))
    names = printed["sub-goals reached at any step"]
    assert names == [name.replace("_", " ") for name in CARROT.subgoals if name != "success"]
    assert dict(zip(names, printed[CARROT.name], strict=True))["ever grasped"] == "50.0"
    assert dict(zip(names, printed[CUBE.name], strict=True))["moved correct obj"] == "0.0"


def test_plain_text_is_ascii_and_numbers_fit_into_eighty_columns() -> None:
    assert text().isascii()
    assert "100.0 [20.7, 100.0]" in text(width=80, plain=False)


def test_where_nobody_looks_lines_are_not_wrapped(capsys: object) -> None:
    console = make_console()
    assert not console.is_terminal
    assert console.width >= 150


def test_progress_says_a_line_now_and_then(monkeypatch: object) -> None:
    now = [0.0]
    monkeypatch.setattr(table_module.time, "monotonic", lambda: now[0])  # type: ignore[attr-defined]
    console = Console(file=io.StringIO(), width=100)
    with EpisodeProgress(console, every=10) as progress:
        progress.start(done=2, total=8)
        for i in range(6):
            now[0] += 6
            progress.add({"success": i % 2 == 0})
    assert console.file.getvalue().splitlines() == [  # type: ignore[attr-defined]
        "4/8 episodes, 50 % success, 10 episodes/min",
        "6/8 episodes, 50 % success, 10 episodes/min",
        "8/8 episodes, 50 % success, 10 episodes/min",
    ]


def test_progress_on_a_terminal_is_a_bar() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=True)
    with EpisodeProgress(console) as progress:
        progress.start(done=0, total=2)
        progress.add({"success": True})
        progress.add({"success": False})
    out = console.file.getvalue()  # type: ignore[attr-defined]
    assert "2/2" in out
    assert "50 % success" in out


def test_at_80_columns_every_name_stands_on_one_line() -> None:
    tasks = [get_task(name) for name in task_names()]
    records = [
        {**plain_record(Address(task.name, layout=f"grid:{k}")), "error": "it crashed" if k else None, "steps": 100}
        for task in tasks
        for k in range(3)
    ]
    records = [{**r, "flags_any": dict.fromkeys(get_task(r["task"]).flags, True)} for r in records]
    summary = summarise(records, tasks)
    console = Console(file=io.StringIO(), width=80, force_terminal=True, color_system=None)
    console.print(result_table(summary, {}, narrow=True))
    console.print(subgoal_table(summary, narrow=True))
    printed = console.file.getvalue()  # type: ignore[attr-defined]
    lines = printed.splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in printed
    for task in tasks:
        assert any(line.strip().startswith(f"{short_name(task.name)}  ") for line in lines), task.name
