"""What runs keep of their settings: those that were written before the settings were dataclasses go on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from vlaser_gym import __version__
from vlaser_gym.cli import load, typed
from vlaser_gym.commands.collect import CollectSettings
from vlaser_gym.commands.train import _check_same
from vlaser_gym.evaluation.evaluator import EvalSettings
from vlaser_gym.evaluation.store import check_same
from vlaser_gym.settings.training import TrainSettings

#: Written by the commands at 6dca482, when defaults stood in YAML files.
BEFORE: dict[str, dict[str, Any]] = json.loads((Path(__file__).parent / "stored_before.json").read_text())

#: Keys of algorithms that came later, and what they say where all is as it was before them.
LATER = {"subgoal_weights": None, "lora": 0, "whole": []}
#: What some keys say now for what they said before, in the models of then.
CHANGED = {"ema": (None, 0.999), "freeze": (None, [])}


def now(command: str, *words: str) -> dict[str, Any]:
    config = load(command, words)
    if command == "train":
        stored = typed(TrainSettings, config).stored("nano")
    else:
        stored = {"eval": EvalSettings, "collect": CollectSettings}[command].from_config(config).stored()
    return json.loads(json.dumps(stored))


@pytest.mark.parametrize("line", BEFORE)
def test_keys_and_values_are_those_of_before(line: str) -> None:
    stored, before = (kept | {"vlaser_gym": __version__} for kept in (now(*line.split()), BEFORE[line]))
    algo, old = stored.get("algo", {}), before.get("algo", {})
    later = {key: algo.pop(key) for key in LATER if key in algo and key not in old}
    assert later == {key: LATER[key] for key in later}
    for key, (now_is, was) in CHANGED.items():
        if (algo.get(key, ...), old.get(key, ...)) == (now_is, was):
            algo[key] = was
    assert json.dumps(stored, sort_keys=True) == json.dumps(before, sort_keys=True), "1 is not 1.0 here"


@pytest.mark.parametrize("line", [line for line in BEFORE if line.startswith("train")])
def test_a_run_of_before_goes_on(line: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(BEFORE[line]))
    _check_same(tmp_path, now(*line.split()))
    with pytest.raises(Exception, match="another seed"):
        _check_same(tmp_path, now(*line.split(), "seed=1"))


def test_an_evaluation_of_before_goes_on(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(BEFORE["eval"] | {"schema": 1}))
    check_same(tmp_path, EvalSettings().stored())
    with pytest.raises(Exception, match="episodes"):
        check_same(tmp_path, EvalSettings(episodes=3).stored())
