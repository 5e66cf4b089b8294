"""Run directories damaged at random: a sentence each, from every reader; the slow test tries 800."""

from __future__ import annotations

from pathlib import Path

import pytest
from damage import survivors
from fabricate_run import addresses, fabricate_run

from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import GymError
from vlaser_gym.evaluation.comparison import load_runs
from vlaser_gym.evaluation.report import write_report
from vlaser_gym.evaluation.store import RunStore, read_config, read_records, read_states, read_summary, read_timing
from vlaser_gym.evaluation.summary import summarise


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    plan = addresses(layouts=2)
    run = fabricate_run(tmp_path / "whole", dict.fromkeys(plan, True), states=True, task=list({a.task for a in plan}))
    config = {name: value for name, value in read_config(run).items() if name != "schema"}
    with RunStore(run, config) as store:
        store.add_timing({"event": "start", "time": "2026-11-29T06:00:00.000+00:00", "host": "here"})
        tasks = [get_task(name) for name in dict.fromkeys(a.task for a in plan)]
        store.finish(summarise(store.sorted_records(), tasks))
    return run


def read_all(run: Path) -> None:
    """What commands do with a run."""
    read_config(run)
    for record in read_records(run):
        read_states(run, record)
    read_summary(run)
    read_timing(run)
    load_runs([str(run), str(run)])


def go_on(run: Path) -> None:
    config = {name: value for name, value in read_config(run).items() if name != "schema"}
    RunStore(run, config).close()


def tell(run: Path) -> None:
    write_report(run)


@pytest.mark.parametrize(("read", "count"), [(read_all, 60), (go_on, 40), (tell, 10)])
def test_some_damage_is_a_sentence(whole: Path, tmp_path: Path, read, count) -> None:
    assert survivors(whole, tmp_path / "copy", read, range(count), GymError) > count / 10


@pytest.mark.long
def test_eight_hundred_damaged_runs_are_a_sentence_each(whole: Path, tmp_path: Path) -> None:
    for read, seeds in ((read_all, range(1000, 1500)), (go_on, range(2000, 2250)), (tell, range(3000, 3050))):
        assert survivors(whole, tmp_path / "copy", read, seeds, GymError) > len(seeds) / 10
