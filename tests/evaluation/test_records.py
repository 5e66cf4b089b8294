"""What is refused when a run is read, and that nothing else changes a number."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
from fabricate_run import CONFIG, TASKS, addresses, fabricate_run

from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import GymError, StorageError
from vlaser_gym.evaluation.comparison import compare_runs, load_runs
from vlaser_gym.evaluation.conventions import success_conventions
from vlaser_gym.evaluation.episodes import read_episodes
from vlaser_gym.evaluation.report import find_videos, write_report
from vlaser_gym.evaluation.store import RunStore, read_config, read_records, read_states, read_summary, read_timing
from vlaser_gym.evaluation.summary import episodes_per_minute, summarise
from vlaser_gym.evaluation.video import choose_examples, select_episodes

WHERE = addresses(layouts=4)
DEEP = b'{"a":' * 100_000 + b"1" + b"}" * 100_000


def complete(run: Path) -> Path:
    """A run of 8 episodes with states and timings, 5 of them successes; all are there."""
    fabricate_run(run, {a: a.layout_index < 2 or a == WHERE[3] for a in WHERE}, lost=WHERE[6:7], states=True)
    with RunStore(run, CONFIG) as store:
        for address in WHERE:
            store.add_timing({"event": "episode", "task": address.task, "seconds": 2.0, "lanes": 4})
        store.finish(summarise(store.sorted_records(), [get_task(name) for name in TASKS]))
    return run


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs ``a`` and ``b``; nobody changes them."""
    folder = tmp_path_factory.mktemp("records")
    fabricate_run(folder / "a", dict.fromkeys(WHERE, True))
    complete(folder / "b")
    return folder


@pytest.fixture
def run(stored: Path, tmp_path: Path) -> Path:
    """A copy of ``b`` to be damaged."""
    return Path(shutil.copytree(stored / "b", tmp_path / "b"))


def lines_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "episodes.jsonl").read_text().splitlines()]


def write_lines(run: Path, lines: list[dict[str, Any]]) -> None:
    (run / "episodes.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def unsealed(run: Path) -> list[dict[str, Any]]:
    """Lines as versions before the checksum wrote them."""
    return [{name: value for name, value in line.items() if name != "crc32"} for line in lines_of(run)]


def refusal(run: Path) -> str:
    """Every reader refuses the run, with the same sentence."""
    (run / "summary.json").unlink(missing_ok=True)
    sentences = set()
    readers = (read_records, lambda run: load_runs([run]), lambda run: read_episodes([run]), find_videos)
    others = (lambda run: select_episodes(run, ["all"]), write_report, lambda run: RunStore(run, CONFIG))
    for read in (*readers, *others):
        with pytest.raises(StorageError) as error:
            read(run)
        sentences.add(str(error.value))
    (sentence,) = sentences
    assert str(run / "episodes.jsonl") in sentence
    return sentence


def test_a_doubled_line_is_refused_not_taken_for_the_first(run: Path) -> None:
    lines = unsealed(run)
    lost = {"success": False, "success_any": False, "first_success_step": None, "flags": {}, "flags_any": {}}
    write_lines(run, [*lines, {**lines[0], **lost}])
    assert "Lines 1 and 9 of" in (sentence := refusal(run))
    assert f"are both of episode {WHERE[0]}: expected each episode once" in sentence


@pytest.mark.parametrize(
    ("changes", "phrase"),
    [
        ({"success": "false"}, "expected true or false as success; got 'false'"),
        ({"success": 1}, "expected true or false as success; got 1"),
        ({"success": None}, "expected true or false as success; got None"),
        ({"trial": True}, "expected a whole number from 0 on as trial; got True"),
        ({"trial": -1}, "expected a whole number from 0 on as trial; got -1"),
        ({"trial": 0.0}, "expected a whole number from 0 on as trial; got 0.0"),
        ({"steps": 10**400}, "expected a whole number from 0 on as steps"),
        ({"reward": float("nan")}, "expected a finite number as reward; got nan"),
        ({"reward": 10**400}, "expected a finite number as reward"),
        ({"layout": "grid:٣"}, "expected grid:3 as layout"),
        ({"layout": "grid"}, "expected KIND:K as layout, such as grid:0; got 'grid'"),
        ({"layout": "grid:007"}, "expected grid:7 as layout; got 'grid:007'"),
        ({"task": ["a"]}, "expected a name as task; got ['a']"),
        ({"agent": "\ud800"}, "expected text as agent"),
        ({"flags": {"success": "yes"}}, "expected names with true or false as flags"),
        ({"flags_any": []}, "expected names with true or false as flags_any; got []"),
        ({"ending": "stopped"}, "expected one of truncated, terminated, error as ending; got 'stopped'"),
        ({"first_success_step": 0}, "expected a whole number from 1 on or null as first_success_step; got 0"),
        ({"first_success_step": 99}, "its fields contradict each other: the first success at step 99 of 12"),
        ({"first_success_step": None}, "its fields contradict each other: success_any and first_success_step"),
        ({"success_any": False}, "its fields contradict each other: success at the last step, but at no step"),
        ({"success": False}, "its fields contradict each other: success and flags"),
        ({"error": "crashed"}, "its fields contradict each other: a success of an episode that did not end"),
        ({"states": "../../secret.npz"}, "expected states/widowx_stack_cube.default.grid-0000.trial-0.npz as states"),
    ],
)
def test_wrong_types_and_contradictions_are_named(run: Path, changes: dict[str, Any], phrase: str) -> None:
    lines = unsealed(run)
    number = next(n for n, line in enumerate(lines, 1) if line["task"] == TASKS[1] and line["success"])
    lines[number - 1] |= changes
    write_lines(run, lines)
    assert f"Line {number} of {run / 'episodes.jsonl'} is damaged: {phrase}" in refusal(run)


@pytest.mark.parametrize("field", ["task", "success", "flags_any", "error", "steps", "states"])
def test_absent_fields_are_named(run: Path, field: str) -> None:
    lines = unsealed(run)
    del lines[2][field]
    write_lines(run, lines)
    assert f"Line 3 of {run / 'episodes.jsonl'} is damaged: expected {field} (" in refusal(run)


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"null", b"", b"\xff\xfe", DEEP, b'{"task": "a", "task": "b"}'], ids=lambda line: line[:9]
)
def test_lines_that_are_no_records_are_refused(run: Path, line: bytes) -> None:
    whole = (run / "episodes.jsonl").read_bytes().splitlines()
    (run / "episodes.jsonl").write_bytes(b"\n".join([*whole[:2], line, *whole[2:], b""]))
    assert f"Line 3 of {run / 'episodes.jsonl'} is damaged: expected" in refusal(run)


def test_a_value_that_is_possible_but_not_what_was_written(run: Path) -> None:
    """No type and no contradiction tells: the checksum does, and says how to keep a change that was meant."""
    lines = lines_of(run)
    lines[4]["steps"] -= 1
    write_lines(run, lines)
    assert "Line 5 of" in (sentence := refusal(run))
    assert "crc32" in sentence
    del lines[4]["crc32"]
    write_lines(run, lines)
    assert read_records(run)[4]["steps"] == 11
    assert all("crc32" not in record for record in read_records(run))


def test_runs_without_checksums_stay_readable(run: Path) -> None:
    before = read_records(run)
    write_lines(run, unsealed(run))
    assert read_records(run) == before
    with RunStore(run, CONFIG) as store:
        assert len(store.records) == 8


def test_a_complete_run_that_lost_a_line_is_refused(run: Path) -> None:
    """The same file without its summary is a run that goes on."""
    write_lines(run, lines_of(run)[:-1])
    with pytest.raises(StorageError, match=f"counts 4 episodes of {TASKS[1]}, the records 3; restore"):
        load_runs([run])
    (run / "summary.json").unlink()
    assert len(read_records(run)) == 7


def test_the_tail_of_a_killed_run_is_no_damage(run: Path) -> None:
    (run / "summary.json").unlink()
    whole = (run / "episodes.jsonl").read_bytes()
    (run / "episodes.jsonl").write_bytes(whole[:-40])
    assert len(read_records(run)) == 7
    with RunStore(run, CONFIG) as store:
        assert len(store.records) == 7
        assert (run / "episodes.jsonl").read_bytes() == whole[: whole[:-40].rindex(b"\n") + 1]


@pytest.mark.parametrize(
    ("name", "old", "new", "phrase"),
    [
        ("config.yaml", "schema: 1", "schema: true", "expected a whole number from 1 on as schema; got True"),
        ("config.yaml", "schema: 1", "schema: 0", "expected a whole number from 1 on as schema; got 0"),
        ("config.yaml", "schema: 1", "schema: '1'", "expected a whole number from 1 on as schema; got '1'"),
        ("config.yaml", "schema: 1", "schema: 2", r"newer vlaser-gym \(schema 2, this one reads up to 1\)"),
        ("config.yaml", "schema: 1", "a: ${", "expected names with values"),
        ("config.yaml", "schema: 1", "a: " + "[" * 5000, "expected names with values"),
        ("config.yaml", "on_success: false", "on_success: 'false'", "expected true or false as terminate_on_success"),
        ("config.yaml", "name: mujoco", "name: [mujoco]", "expected a name, or settings with a name as engine"),
        ("summary.json", '"schema": 1', '"schema": 7', "newer vlaser-gym"),
        ("summary.json", '"n": 4', '"n": "4"', "expected a whole number from 1 on as n; got '4'"),
        ("summary.json", '"n": 4', '"n": 3', f"counts 3 episodes of {TASKS[0]}, the records 4"),
        (
            "summary.json",
            '"count": 3',
            '"count": 4',
            f"counts 4 successes at the last step of {TASKS[0]}, the records 3",
        ),
        ("summary.json", "{", "[", "expected names with values"),
    ],
)
def test_settings_and_summaries_are_checked_too(run: Path, name: str, old: str, new: str, phrase: str) -> None:
    text = (run / name).read_text()
    assert old in text
    (run / name).write_text(text.replace(old, new, 1))
    with pytest.raises(StorageError, match=phrase) as error:
        read_records(run)
    assert str(run / name) in str(error.value)


def test_what_could_not_be_read_is_not_written(tmp_path: Path, run: Path) -> None:
    record = {**read_records(run)[0], "success": "false"}
    with RunStore(tmp_path / "new", CONFIG) as store, pytest.raises(ValueError, match="true or false as success"):
        store.add(record, None)


# ---- a thousand damages ----------------------------------------------------------------------------------------------

ODD = (None, "false", "", {}, [], -1, 0.5, "NaN", "grid:2", "\u0000", [[]] * 3, {"a": {"b": 1}}, 10**30, 1e308)


def damage_bytes(run: Path, rng: random.Random) -> None:
    """Somewhere in a file, as a bad disk, a bad copy or an editor would."""
    file = rng.choice([p for p in sorted(run.rglob("*")) if p.is_file() and (p.parent == run or rng.random() < 0.2)])
    data = file.read_bytes()
    at, length = rng.randrange(len(data)), rng.choice((1, 1, 1, 8, 200))
    kinds: list[Callable[[], bytes]] = [
        lambda: data[:at] + rng.randbytes(length) + data[at + length :],
        lambda: data[:at] + b"%d" % rng.randrange(10) + data[at + 1 :],
        lambda: data[:at] + bytes(length) + data[at + length :],
        lambda: data[: at + length] + data[at:],
        lambda: data[:at] + data[at + length :],
        lambda: data[:at],
    ]
    file.write_bytes(rng.choice(kinds)())


def damage_lines(run: Path, rng: random.Random) -> None:
    """Whole lines of a file doubled, gone, moved, emptied, or too deep."""
    file = run / rng.choice(["episodes.jsonl", "episodes.jsonl", "timing.jsonl", "config.yaml", "summary.json"])
    lines = file.read_bytes().splitlines(keepends=True)
    one, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    new = rng.choice([lines[other], b"", b"{}\n", b"\n", DEEP + b"\n", lines[one] * 2, lines[other].rstrip(b"\n")])
    file.write_bytes(b"".join([*lines[:one], new, *lines[one + 1 :]]))


def damage_values(run: Path, rng: random.Random) -> None:
    """A value of a record without a checksum, or of the summary or of a timing, in place of another or of none."""
    file = run / rng.choice(["episodes.jsonl", "episodes.jsonl", "timing.jsonl", "summary.json"])
    text = file.read_text()
    entries = [json.loads(text)] if file.suffix == ".json" else [json.loads(line) for line in text.splitlines()]
    if file.name == "episodes.jsonl":
        entries = unsealed(run)
    place: Any = rng.choice(entries)
    while isinstance(inner := place[key := rng.choice([*(place if isinstance(place, dict) else range(len(place)))])],
                     dict | list) and inner and rng.random() < 0.7:  # fmt: skip
        place = inner
    if rng.random() < 0.2:
        del place[key]
    else:
        place[key] = rng.choice(ODD)
    file.write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def numbers_of(baseline: Path, run: Path, folder: Path, all_of_it: bool) -> Any:
    """What people are told of a run, beside another run and by itself; more slowly with its page and its states."""
    runs = load_runs([baseline, run])
    compared = asdict(compare_runs(runs))["against"][0] | {"warnings": None}
    records = read_records(run)
    summary = summarise(records, [get_task(name) for name in dict.fromkeys(r["task"] for r in records)])
    found = [compared, summary, success_conventions(records), [e.progress for e in read_episodes([run])]]
    read_summary(run)
    choose_examples(records, 2)
    with suppress(StorageError):  # pace is no number that anybody compares
        episodes_per_minute(read_timing(run))
    if all_of_it:
        with suppress(StorageError):  # an episode is scored without its states
            for record in records:
                read_states(run, record)
        write_report(run, path=folder / "page.html")
        write_report(baseline, compare_to=run, path=folder / "page.html")
        with RunStore(run, {**CONFIG, "schema": read_config(run)["schema"]}) as store:
            assert all(store.records[a] == runs[1].records[a] for a in store.records)
    return found


@pytest.mark.parametrize("count", [40, pytest.param(1000, marks=pytest.mark.long)])
@pytest.mark.parametrize("damage", [damage_bytes, damage_lines, damage_values])
def test_damage_changes_no_number(stored: Path, tmp_path: Path, damage: Callable[..., None], count: int) -> None:
    """Each gives the same numbers or one sentence, and never a traceback."""
    rng, run = random.Random(damage.__name__), tmp_path / "b"
    expected = numbers_of(stored / "a", stored / "b", tmp_path, False)
    sentences = []
    for number in range(count):
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(stored / "b", run)
        damage(run, rng)
        try:
            assert numbers_of(stored / "a", run, tmp_path, number % 10 == 0) == expected
        except GymError as refusal:
            sentences.append(str(refusal))
    assert len(sentences) > count / 4
    assert all(sentence.endswith(".") and "\n" not in sentence for sentence in sentences)
