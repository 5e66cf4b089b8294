"""Runs of an earlier agent are named where their numbers would be used, and those of other agents are left alone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fabricate_run import CONFIG, fabricate_run

from vlaser_gym.agents.vlaser.versions import AGENT_VERSIONS, why_outdated
from vlaser_gym.commands import train
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation.comparison import compare_runs, load_runs
from vlaser_gym.evaluation.episodes import read_episodes
from vlaser_gym.evaluation.published import published_lines
from vlaser_gym.evaluation.store import RunStore, check_same
from vlaser_gym.evaluation.summary import summarise

TASK = "google_robot_pick_coke_can"
OUTCOMES = {Address(TASK, layout=f"grid:{k}"): bool(k % 2) for k in range(4)}
#: What a Vlaser agent told of itself before it told a version.
OLD = {"policy": "vlaser_2b", "robot": "google_robot", "time_max_period": 100.0, "act_steps": 2}
NEW = {**OLD, "agent_version": 2}
WIDOWX = {**OLD, "robot": "widowx"}


@pytest.fixture
def runs(tmp_path: Path) -> dict[str, Path]:
    """Stored runs of the old and the new agent, and of one that is no Vlaser policy."""
    told = {"old": OLD, "new": NEW, "other": {"robot": "google_robot", "act_steps": 2}}
    return {name: fabricate_run(tmp_path / name, OUTCOMES, agent_settings=what) for name, what in told.items()}


def test_which_are_outdated() -> None:
    assert "version 1 of the Vlaser agent on google_robot, here it is version 2" in str(why_outdated(OLD))
    assert "update the package" in str(why_outdated({**OLD, "agent_version": 99}))
    for told in (NEW, WIDOWX, {**WIDOWX, "agent_version": 1}, {"robot": "google_robot"}, {}, None):
        assert why_outdated(told) is None


def test_compare_says_so(runs: dict[str, Path]) -> None:
    def warnings(a: str, b: str) -> list[str]:
        return [w for w in compare_runs(load_runs([runs[a], runs[b]])).against[0].warnings if "Vlaser agent" in w]

    (said,) = warnings("old", "new")
    assert said.startswith("old was made by version 1 of the Vlaser agent on google_robot, here it is version 2: the")
    assert len(warnings("other", "old")) == 1, "whatever it is compared with"
    assert warnings("new", "other") == []


def test_published_numbers_are_not_set_beside_it_without_a_word(runs: dict[str, Path]) -> None:
    records = load_runs([runs["old"], runs["new"]])[0].records
    summary = summarise(list(records.values()), [get_task(TASK)])
    config = {**CONFIG, "look": "original", "variant": "default"}
    said = [published_lines(summary, {**config, "agent_settings": told})[-1] for told in (OLD, NEW)]
    assert ["version 1 of the Vlaser agent" in line for line in said] == [True, False]


def test_it_is_not_continued(runs: dict[str, Path]) -> None:
    before = {file: file.read_bytes() for file in runs["old"].rglob("*") if file.is_file()}
    match = r"old holds an evaluation made by version 1 .* Run it again with another run=\.$"
    with pytest.raises(StorageError, match=match):
        check_same(runs["old"], CONFIG)
    with pytest.raises(StorageError, match=match):
        RunStore(runs["old"], {**CONFIG, "agent_settings": NEW})
    assert before == {file: file.read_bytes() for file in runs["old"].rglob("*") if file.is_file()}
    check_same(runs["new"], {**CONFIG, "agent_settings": NEW})


def test_runs_whose_numbers_did_not_change_are_continued(tmp_path: Path) -> None:
    run = fabricate_run(tmp_path / "run", OUTCOMES, agent_settings=WIDOWX)
    check_same(run, {**CONFIG, "agent_settings": {**WIDOWX, "agent_version": AGENT_VERSIONS["widowx"]}})
    with pytest.raises(StorageError, match="agent_version was 1, now 2"):
        check_same(run, {**CONFIG, "agent_settings": {**WIDOWX, "agent_version": 2}})


def test_its_outcomes_are_not_learned_from(runs: dict[str, Path]) -> None:
    assert len(read_episodes([runs["new"], runs["other"]])) == 8
    with pytest.raises(StorageError, match=r"old was made by version 1 .* Run it again to learn from it\.$"):
        read_episodes([runs["new"], runs["old"]])


def test_training_is_not_continued_with_another_agent(tmp_path: Path) -> None:
    stored = {"algo": {"name": "ppo"}, "seed": 0}
    train.keep_settings(tmp_path, stored, {})
    with pytest.raises(StorageError, match=r"holds a run made by version 1 .* Begin again with another run=\.$"):
        train._agent_version(tmp_path, "google_robot")
    assert json.loads((tmp_path / "settings.json").read_text()) == stored
    assert train._agent_version(tmp_path, "widowx") == {"agent_version": 1}
    for _ in range(2):
        kept = train._agent_version(tmp_path / "fresh", "google_robot")
        assert kept == {"agent_version": 2}
        train.keep_settings(tmp_path / "fresh", stored | kept, {})
