from __future__ import annotations

import base64
import io
import json
import os
import re
import shlex
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fabricate_run import TASKS, addresses, fabricate_run
from rich.console import Console

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import InvalidConfigError, StorageError
from vlaser_gym.evaluation.diagnosis import Diagnosis
from vlaser_gym.evaluation.report import builder, find_videos, write_report
from vlaser_gym.evaluation.store import read_records
from vlaser_gym.evaluation.summary import summarise
from vlaser_gym.evaluation.table import result_table
from vlaser_gym.evaluation.video import video_folder, video_name

WHERE = addresses(layouts=6)


def data_of(page: Path) -> dict[str, Any]:
    """The episodes that a page knows."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(), re.DOTALL)
    assert found
    return json.loads(found[1])


def a_run(path: Path, **options: Any) -> Path:
    outcomes = {x: x.layout_index > 2 for x in WHERE}
    return fabricate_run(path, outcomes, lost=WHERE[:1], states=True, **options)


def test_the_page_knows_every_episode(tmp_path: Path) -> None:
    page = write_report(a_run(tmp_path / "run"))
    assert page == tmp_path / "run" / "report.html"
    data = data_of(page)
    assert [e["id"] for e in data["episodes"]] == [str(x) for x in WHERE]
    first, third, last = (data["episodes"][k]["sides"][0] for k in (0, 2, 5))
    assert (first["outcome"], first["first"], first["steps"]) == ("lost", 6, 12)
    assert (third["outcome"], third["first"]) == ("failure", None)
    assert third["reached"] == get_task(TASKS[0]).subgoals[1]
    assert (last["outcome"], last["reached"]) == ("success", "success")
    assert last["decisions"] == [0, 4, 8]
    assert last["flags"]["success"] == [[8, 12]]
    assert first["flags"]["success"] == [[5, 6]]
    assert first["told"] == [[0, "put carrot on plate"]]


def test_the_page_knows_when_the_second_stage_began(tmp_path: Path) -> None:
    known, older, lost = addresses(["google_robot_place_apple_in_closed_top_drawer"], layouts=3)
    first, second = "open top drawer", "place apple into top drawer"
    told = {known: [first] * 8 + [second] * 5}
    run = fabricate_run(tmp_path / "run", dict.fromkeys((known, older, lost), False), states=True, told=told)
    (run / "states" / "google_robot_place_apple_in_closed_top_drawer.default.grid-0002.trial-0.npz").unlink()
    sides = [episode["sides"][0] for episode in data_of(write_report(run))["episodes"]]
    assert sides[0]["told"] == [[0, first], [8, second]]
    assert sides[1]["told"] == sides[2]["told"] == [[0, first], [1, f"unknown (at the start: {first})"]]


def test_known_diagnoses_are_taken_and_the_others_found(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    found = [episode["sides"][0]["failure"] for episode in data_of(write_report(run))["episodes"]]
    given = {WHERE[1]: Diagnosis("wrong_drawer", "fell")}
    told = [episode["sides"][0]["failure"] for episode in data_of(write_report(run, diagnoses=given))["episodes"]]
    assert told == [found[0], "wrong_drawer", *found[2:]]
    assert "wrong_drawer" not in found


def test_the_table_shows_rates_and_intervals(tmp_path: Path) -> None:
    text = write_report(a_run(tmp_path / "run")).read_text()
    row = re.search(r"carrot on plate</th>(.*?)</tr>", text, re.DOTALL)
    assert row
    cells = re.sub(r"<[^>]+>|\s+", " ", row[1]).split()
    assert cells[:4] == ["6", "50.0", "[18.8,", "81.2]"]
    assert "66.7" in cells, "success at any step"
    assert "Not the same protocol: engine mujoco here, simpler there" in text


def test_steps_to_success_are_those_of_the_terminal(tmp_path: Path) -> None:
    """Four episodes: success from step 9 on, success at step 6 alone, failure of 12 steps, crash. By hand."""
    where = addresses(TASKS[:1], layouts=4)
    run = fabricate_run(tmp_path / "run", {x: x == where[0] for x in where}, lost=where[1:2], errors=where[3:])
    table = re.search(r"<table>(.*?)</table>", write_report(run).read_text(), re.DOTALL)
    assert table
    columns, row = (re.findall(rf"<{tag}[^>]*>(.*?)</{tag}>", table[1], re.DOTALL) for tag in ("th", "td"))
    told = dict(zip(columns[-2 - 1 : -1], row[-2:], strict=True))
    assert told == {
        "Steps to success (if any)": f"{(9 + 6) / 2:.1f}",
        "Steps if stopped at success": f"{(9 + 6 + 12) / 3:.1f}",
    }
    console = Console(file=io.StringIO(), width=160)
    console.print(result_table(summarise(read_records(run), [get_task(TASKS[0])]), {}, plain=True))
    printed = [[cell.strip() for cell in line.split("|")] for line in console.file.getvalue().splitlines()]  # type: ignore[attr-defined]
    heads = [" ".join(filter(None, cells)) for cells in zip(*printed[1:4], strict=True)]
    values = dict(zip(heads, next(cells for cells in printed if TASKS[0] in cells), strict=True))
    assert values["steps to success (if any)"] == told["Steps to success (if any)"]
    assert values["steps"] == "12.0"


def test_the_same_run_gives_the_same_page(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    assert write_report(run).read_bytes() == write_report(run, path=tmp_path / "run" / "again.html").read_bytes()


def test_videos_and_pictures_become_part_of_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = a_run(tmp_path / "run")
    clips = {WHERE[0]: tmp_path / "a.mp4", WHERE[4]: tmp_path / "b with blank.mp4"}
    for name, file in enumerate(clips.values()):
        file.write_bytes(b"video %d" % name * 10)
    page = write_report(run, clips, thumbnails={WHERE[0]: b"jpeg"})
    sides = [e["sides"][0] for e in data_of(page)["episodes"]]
    assert [side["video"] for side in sides] == [0, None, None, None, 1, *[None] * 7]
    assert base64.b64decode(sides[0]["picture"]) == b"jpeg"
    embedded = re.findall(r'id="video-(\d)">([^<]+)<', page.read_text())
    assert [(k, base64.b64decode(v)) for k, v in embedded] == [("0", b"video 0" * 10), ("1", b"video 1" * 10)]
    monkeypatch.setattr(builder, "EMBED_LIMIT", 100)
    sides = [e["sides"][0] for e in data_of(write_report(run, clips))["episodes"]]
    assert (sides[0]["video"], sides[4]["video"]) == (0, None), "beyond the limit it stays a file"
    assert sides[4]["file"] == "../b%20with%20blank.mp4"


def test_other_episodes_name_the_command_and_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page looks where the rendering command leaves the video, seen from the page's own folder."""
    monkeypatch.chdir(tmp_path)
    a_run(Path("runs/my run"))
    side = data_of(write_report("runs/my run"))["episodes"][3]["sides"][0]
    assert side["command"] == (
        "python -m vlaser_gym.render run='runs/my run' episodes=widowx_carrot_on_plate/default/grid:3/0"
    )
    record = read_records("runs/my run")[3]
    name = video_name(record)
    assert side["file"] == f"../../videos/my%20run/{name}"
    file = video_folder("runs/my run") / name
    assert find_videos("runs/my run") == {}
    file.parent.mkdir(parents=True)
    file.touch()
    assert find_videos("runs/my run") == {WHERE[3]: file}


def test_a_video_belongs_to_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs of one name in different places, and a run that took the place of an earlier one."""
    monkeypatch.chdir(tmp_path)
    runs = [a_run(Path(parent) / "test") for parent in ("runs", "A", "B")]
    record = read_records(runs[0])[3]
    folders = [video_folder(run) for run in runs]
    assert folders[0] == Path("videos/test")
    assert len({*folders}) == 3
    assert video_folder(tmp_path / "A" / "test") == folders[1]
    for k, folder in enumerate(folders):
        folder.mkdir(parents=True)
        (folder / video_name(record)).touch()
        assert [len(find_videos(run)) for run in runs] == [1] * (k + 1) + [0] * (2 - k)
    states = (runs[1] / record["states"]).stat()
    os.utime(folders[1] / video_name(record), ns=(0, states.st_mtime_ns - 1))
    assert find_videos(runs[1]) == {}


def test_episodes_without_states(tmp_path: Path) -> None:
    page = write_report(fabricate_run(tmp_path / "run", dict.fromkeys(WHERE, True)))
    side = data_of(page)["episodes"][0]["sides"][0]
    assert (side["flags"], side["decisions"], side["command"], side["file"]) == ({}, [], None, None)


def test_two_runs_side_by_side(tmp_path: Path) -> None:
    a = a_run(tmp_path / "a", agent="first")
    b = fabricate_run(
        tmp_path / "b", dict.fromkeys([*WHERE[3:], Address(TASKS[0], layout="grid:20")], True), agent="second"
    )
    page = write_report(a, compare_to=b)
    assert page == tmp_path / "b" / "compare.html"
    data = data_of(page)
    assert data["sides"] == ["A", "B"]
    assert [e["id"] for e in data["episodes"]] == [str(x) for x in WHERE[3:]], "only what both hold"
    assert [side["agent"] for side in data["episodes"][0]["sides"]] == ["first", "second"]
    text = page.read_text()
    assert "Left out for want of a partner: 3 episodes of a, 1 of b." in text
    assert '<th scope="col">p (Holm)</th>' in text
    with pytest.raises(InvalidConfigError, match="no episode in common"):
        write_report(a, compare_to=fabricate_run(tmp_path / "c", {Address(TASKS[0], layout="grid:21"): True}))


def test_nothing_in_a_record_can_become_markup(tmp_path: Path) -> None:
    nasty = "</script><img src=x onerror=alert(1)>&\u2028"
    text = write_report(a_run(tmp_path / "run", agent=nasty)).read_text()
    assert "<img src=x" not in text
    assert "</script><" not in text.replace("</script>\n", "")
    assert data_of(tmp_path / "run" / "report.html")["episodes"][0]["sides"][0]["agent"] == nasty


def test_what_cannot_be_written_or_read(tmp_path: Path) -> None:
    run = a_run(tmp_path / "run")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="Cannot write the report"):
        write_report(run, path=tmp_path / "file" / "report.html")
    with pytest.raises(StorageError, match="no run directory"):
        write_report(tmp_path / "nowhere")
    assert not list(run.glob("*.tmp"))


@pytest.mark.parametrize("name", ["$(touch owned)", "a; rm -rf b", "`id`", "it's", 'say "x"', "a\nb", "-x", "a b"])
def test_a_hostile_run_s_command_is_one_command(name: str) -> None:
    """Read back by a shell's rules, the copied line has the path and the address as one argument each."""
    side = object.__new__(builder._Side)
    side.stored = SimpleNamespace(path=Path("runs") / name)
    command = side._command(Address(f"task{name}", layout="grid:0"))
    assert shlex.split(command)[3:] == [f"run=runs/{name}", f"episodes=task{name}/default/grid:0/0"]
