from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fabricate_run import plain_record as record

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation import store as store_module
from vlaser_gym.evaluation.store import (
    SCHEMA,
    RunStore,
    check_same,
    check_writable,
    read_config,
    read_records,
    read_states,
    read_summary,
    read_timing,
)
from vlaser_gym.storage import files

CONFIG: dict[str, Any] = {"task": "widowx", "num_envs": 8, "video": 1, "agent": {"name": "random", "horizon": 4}}
ADDRESSES = [Address("b", layout=f"grid:{k}") for k in (10, 2)] + [Address("a", layout="region:7", trial=1)]


def summary(**counts: int) -> dict[str, Any]:
    """Of a run in which all episodes succeeded."""
    rates = {task: {"count": n, "rate": 1.0, "low": 0.2, "high": 1.0} for task, n in counts.items()}
    rows = [
        {"task": task, "n": n, "errors": 0, "success": rates[task], "success_any": rates[task]}
        for task, n in counts.items()
    ]
    return {"schema": SCHEMA, "tasks": rows}


def states(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "qpos": rng.normal(size=(4, 8)),
        "object/bridge_carrot": rng.normal(size=(4, 7)),
        "flag/x": np.ones(3, bool),
    }


def filled(path: Path, addresses: list[Address] = ADDRESSES) -> Path:
    with RunStore(path, CONFIG) as store:
        for i, address in enumerate(addresses):
            store.add(record(address), states(i))
    return path


def test_what_is_stored_comes_back(tmp_path: Path) -> None:
    run = filled(tmp_path / "deep" / "run")
    records = read_records(run)
    assert [r["layout"] for r in records] == ["region:7", "grid:2", "grid:10"], "sorted by task, then by number"
    for i, address in enumerate(ADDRESSES):
        stored = read_states(run, next(r for r in records if r["layout"] == address.layout))
        for name, values in states(i).items():
            np.testing.assert_array_equal(stored[name], values)
            assert stored[name].dtype == values.dtype
    assert read_config(run) == {"schema": SCHEMA, **CONFIG}


def test_lines_are_appended_and_sorted_at_the_end(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    lines = [json.loads(line)["layout"] for line in (run / "episodes.jsonl").read_text().splitlines()]
    assert lines == ["grid:10", "grid:2", "region:7"]
    with RunStore(run, CONFIG) as store:
        store.finish(summary(a=1, b=2))
    lines = [json.loads(line)["layout"] for line in (run / "episodes.jsonl").read_text().splitlines()]
    assert lines == ["region:7", "grid:2", "grid:10"]
    assert json.loads((run / "summary.json").read_text()) == summary(a=1, b=2) == read_summary(run)
    assert not list(run.rglob("*.tmp"))


def test_the_line_comes_after_its_states(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the two leaves no episode behind that claims states it does not have."""

    def crash(*_: Any) -> None:
        raise SystemExit

    with RunStore(tmp_path / "run", CONFIG) as store:
        store.add(record(ADDRESSES[0]), states())
        monkeypatch.setattr(store_module, "append_line", crash)
        with pytest.raises(SystemExit):
            store.add(record(ADDRESSES[1]), states())
    assert len(list((tmp_path / "run" / "states").iterdir())) == 2
    assert len(read_records(tmp_path / "run")) == 1


def test_a_line_cut_anywhere_costs_its_episode_only(tmp_path: Path) -> None:
    run = filled(tmp_path / "run", ADDRESSES[:2])
    whole = (run / "episodes.jsonl").read_bytes()
    first = whole.index(b"\n") + 1
    for cut in [*range(first, len(whole), 7), len(whole) - 2, len(whole) - 1]:
        (run / "episodes.jsonl").write_bytes(whole[:cut])
        assert len(read_records(run)) == 1
        with RunStore(run, CONFIG) as store:
            assert list(store.records) == ADDRESSES[:1]
            store.add(record(ADDRESSES[1]), states(1))
        assert (run / "episodes.jsonl").read_bytes() == whole


@pytest.mark.parametrize("tail", [b"\0" * 40, b"\0" * 40 + b"\n", b'{"task": "a"\n', b"[1]\n"])
def test_a_tail_that_a_power_failure_left_is_dropped(tmp_path: Path, tail: bytes) -> None:
    run = filled(tmp_path / "run")
    whole = (run / "episodes.jsonl").read_bytes()
    (run / "episodes.jsonl").write_bytes(whole + tail)
    with RunStore(run, CONFIG) as store:
        assert len(store.records) == 3
    assert (run / "episodes.jsonl").read_bytes() == whole


def test_damage_inside_is_an_error_not_a_smaller_denominator(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    whole = (run / "episodes.jsonl").read_bytes()
    lines = whole.splitlines(keepends=True)
    (run / "episodes.jsonl").write_bytes(lines[0] + lines[1][:20] + b"\n" + lines[2])
    for use in (lambda: read_records(run), lambda: RunStore(run, CONFIG)):
        with pytest.raises(StorageError, match=r"Line 2 of .* is damaged"):
            use()
    (run / "episodes.jsonl").write_bytes(whole)
    with RunStore(run, CONFIG) as store:  # the refusal has let go of the directory
        assert len(store.records) == 3


def test_an_episode_whose_states_are_gone_is_run_again(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    (run / read_records(run)[0]["states"]).unlink()
    with RunStore(run, CONFIG) as store:
        assert len(store.records) == 2
        store.add(record(ADDRESSES[2], again=True), states(2))
    assert [r.get("again") for r in read_records(run)] == [True, None, None]


def torn(data: bytes) -> bytes:
    """As a power failure may leave a file: the right length, with a hole."""
    middle = len(data) // 2
    return data[:middle] + bytes(100) + data[middle + 100 :]


@pytest.mark.parametrize("damage", [torn, lambda data: b"", lambda data: data[:-50]])
def test_an_episode_whose_states_did_not_reach_the_disk_is_run_again(tmp_path: Path, damage: Any) -> None:
    run = filled(tmp_path / "run")
    file = run / read_records(run)[0]["states"]
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with RunStore(run, CONFIG) as store:
        assert len(store.records) == 2
        store.add(record(ADDRESSES[2]), states(2))
        store.finish(summary(a=1, b=2))
    assert file.read_bytes() == whole
    assert len(read_records(run)) == 3


def test_states_reach_the_disk_before_their_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(files, "bring_to_disk", lambda file: order.append(file.name))
    run = filled(tmp_path / "run", ADDRESSES[:1])
    (file,) = (run / "states").iterdir()
    assert order[0].startswith("config.yaml.")
    assert order[1:] == ["run", file.name, "episodes.jsonl"]


def test_a_disk_that_fails_while_nobody_waits_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(file: Path) -> None:
        raise OSError(5, "Input/output error")

    store = RunStore(tmp_path / "run", CONFIG)
    monkeypatch.setattr(files, "bring_to_disk", fail)
    store.add(record(ADDRESSES[0]), states())
    with pytest.raises(StorageError, match="Input/output error"):
        store.close()
    monkeypatch.undo()
    RunStore(tmp_path / "run", CONFIG).close()  # it has let go of the directory


def test_storing_knows_its_own_cost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with RunStore(tmp_path / "run", CONFIG) as store:
        before = store.seconds
        monkeypatch.setattr(store_module, "pack_arrays", lambda states: time.sleep(0.05) or b"")
        store.add(record(ADDRESSES[0]), states())
        assert 0.05 <= store.seconds - before < 1
        monkeypatch.undo()
        time.sleep(0.2)
    assert store.seconds - before < 0.2, "time between the calls is not its own"


def test_damaged_states_are_one_sentence(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    first = read_records(run)[0]
    (run / first["states"]).write_bytes(b"PK\x03\x04 no longer an archive")
    with pytest.raises(StorageError, match="Cannot read the states"):
        read_states(run, first)


def test_other_settings_are_refused_with_the_difference(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    other = {**CONFIG, "agent": {"name": "random", "horizon": 8}, "look": "builtin"}
    with pytest.raises(StorageError, match=r"agent\.horizon was 4, now 8; look was not set, now 'builtin'\)"):
        RunStore(run, other)
    assert before == {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}


def test_settings_that_change_no_result_may_differ(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    with RunStore(run, {**CONFIG, "num_envs": 2, "video": 0, "max_minutes": 3.0}) as store:
        assert len(store.records) == 3


@pytest.mark.parametrize("key", ["threads", "render_processes", "processes", "timeout"])
def test_how_many_share_the_work_of_an_engine_may_differ(tmp_path: Path, key: str) -> None:
    engine = {"name": "some", "assets": "here"}
    with RunStore(tmp_path / "run", {**CONFIG, "engine": {**engine, key: 1}}) as store:
        store.add(record(ADDRESSES[0]), states())
    check_same(tmp_path / "run", {**CONFIG, "engine": {**engine, key: 2}})
    with pytest.raises(StorageError, match=r"engine\.assets was 'here', now 'there'"):
        check_same(tmp_path / "run", {**CONFIG, "engine": {**engine, key: 1, "assets": "there"}})


def test_a_check_at_the_door_looks_at_the_keys_it_knows(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    check_same(run, {"task": "widowx"})
    with pytest.raises(StorageError, match="task was 'widowx', now 'x'"):
        check_same(run, {"task": "x"})


def test_a_folder_with_other_things_is_refused(tmp_path: Path) -> None:
    (tmp_path / "photo.png").write_bytes(b"")
    with pytest.raises(StorageError, match="is no run directory"):
        RunStore(tmp_path, CONFIG)
    assert [path.name for path in tmp_path.iterdir()] == ["photo.png"]


def test_an_empty_or_barely_begun_folder_is_taken(tmp_path: Path) -> None:
    (tmp_path / "states").mkdir()
    (tmp_path / "config.yaml.tmp").write_text("sche")
    with RunStore(tmp_path, CONFIG) as store:
        assert not store.records
    assert not (tmp_path / "config.yaml.tmp").exists()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    run = filled(tmp_path / "run")
    text = (run / "config.yaml").read_text()
    (run / "config.yaml").write_text(text.replace(f"schema: {SCHEMA}", f"schema: {SCHEMA + 1}"))
    with pytest.raises(StorageError, match="newer vlaser-gym"):
        read_records(run)


@pytest.mark.parametrize("damage", ["", "schema: [", "- a\n- b\n", "task: widowx\n"])
def test_a_damaged_config_is_one_sentence(tmp_path: Path, damage: str) -> None:
    run = filled(tmp_path / "run")
    (run / "config.yaml").write_text(damage)
    with pytest.raises(StorageError, match=r"config\.yaml is damaged"):
        RunStore(run, CONFIG)


def test_two_processes_cannot_write_the_same_run(tmp_path: Path) -> None:
    code = f"from vlaser_gym.evaluation.store import RunStore; RunStore({str(tmp_path / 'run')!r}, {CONFIG!r})"
    with RunStore(tmp_path / "run", CONFIG):
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "Another process is writing" in done.stderr
    RunStore(tmp_path / "run", CONFIG).close()


@pytest.mark.parametrize("where", ["file/run", "file", "/proc/nowhere/run"])
def test_places_that_cannot_be_written(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("a file")
    path = tmp_path / where
    for use in (lambda: check_writable(path), lambda: RunStore(path, CONFIG)):
        with pytest.raises(StorageError, match="Cannot use the run directory"):
            use()
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_checking_leaves_no_trace(tmp_path: Path) -> None:
    check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())
    check_writable(filled(tmp_path / "run"))
    assert (tmp_path / "run" / "config.yaml").exists()


def test_a_run_that_fails_before_its_first_episode_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(KeyError), RunStore(tmp_path / "a" / "run", CONFIG):
        raise KeyError
    assert not list(tmp_path.iterdir())
    with suppress(KeyError), RunStore(tmp_path / "run", CONFIG) as store:
        store.add(record(ADDRESSES[0]), None)
        raise KeyError
    assert len(read_records(tmp_path / "run")) == 1


@pytest.mark.parametrize("name", ["append_line", "pack_arrays"])
def test_ctrl_c_while_the_first_episode_is_stored_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """It used to delete the directory with that episode, and to say that there is no such file."""
    storing = getattr(store_module, name)

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(0.05)
        return storing(*arguments)

    monkeypatch.setattr(store_module, name, interrupted)
    with pytest.raises(KeyboardInterrupt), RunStore(tmp_path / "run", CONFIG) as store:
        store.add(record(ADDRESSES[0]), states())
    assert [r["layout"] for r in read_records(tmp_path / "run")] == [ADDRESSES[0].layout]
    assert not list(tmp_path.rglob("*.lock"))


def test_a_full_disk_is_one_sentence_and_costs_one_episode(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(file: Any, entry: Any) -> None:
        file.write(b'{"task": "a')
        raise OSError(28, "No space left on device")

    run = filled(tmp_path / "run", ADDRESSES[:2])
    with RunStore(run, CONFIG) as store:
        monkeypatch.setattr(store_module, "append_line", full)
        with pytest.raises(StorageError, match="No space left on device"):
            store.add(record(ADDRESSES[2]), states(2))
        monkeypatch.undo()
    with RunStore(run, CONFIG) as store:
        assert list(store.records) == ADDRESSES[:2]
        store.add(record(ADDRESSES[2]), states(2))
    assert len(read_records(run)) == 3


def test_timing_is_kept_apart(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", CONFIG) as store:
        store.add_timing({"event": "start"})
        store.add_timing({"event": "end", "seconds": 1.5})
    assert read_timing(tmp_path / "run") == [{"event": "start"}, {"event": "end", "seconds": 1.5}]
    assert not (tmp_path / "run" / "episodes.jsonl").read_text()


def test_no_number_that_json_lacks(tmp_path: Path) -> None:
    with RunStore(tmp_path / "run", CONFIG) as store, pytest.raises(ValueError, match="finite number as reward"):
        store.add(record(ADDRESSES[0], reward=float("nan")), None)
    with pytest.raises(StorageError, match="no states"):
        read_states(tmp_path / "run", record(ADDRESSES[0], states=None))
