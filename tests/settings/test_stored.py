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

#: Keys of algorithms that came later, and the value that means what was so before them.
LATER = {
    **{"subgoal_weights": None, "likelihood": "chain", "dual_clip": None, "value_clip": None, "critic": "features"},
    **{"advantages": "all", "initial_noise": None, "chunk_noise": [0.12, 0.04], "rotation_noise": 0.3},
    **{"filter_groups": True, "rollout_batch": None, "lora": 0, "whole": [], "answers": 32, "named_places": 0.0},
    "place_spread": 0.0,
}
#: What some keys say now for what they said before, in the models of then.
CHANGED = {
    **{"ema": (None, 0.999), "freeze": (None, [])},
    **{"density": ("chunk_gaussian", "flow_sde"), "learning_rate": (1e-5, 3e-5)},
    **{"gamma": (1.0, 0.995), "reward": ("last", "sparse"), "terminate_on_success": (False, True)},
}


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
    if line.startswith("train"):
        assert [stored.pop(key) for key in ("layouts", "tokenizer")] == [None] * 2
    if line.startswith("eval"):
        assert [stored.pop(key) for key in ("perturb", "instruction", "max_episode_steps", "reduced")] == [None] * 4
    if line.startswith("collect"):
        assert [stored.pop(key) for key in ("render", "cameras")] == ["every_step", "policy"]
        assert [stored.pop(key) for key in ("instruction", "max_episode_steps")] == [None] * 2
    if algo.get("name") in ("ppo", "grpo"):
        assert later.pop("chunk_noise") == [0.1, 0.04]
    assert later == {key: LATER[key] for key in later}
    for key, (now_is, was) in CHANGED.items():
        if (algo.get(key, ...), old.get(key, ...)) == (now_is, was):
            algo[key] = was
    # Without a checkpoint agent=vlaser was refused; it acts by the package's policy now.
    if before.get("agent", {}).get("checkpoint", ...) is None:
        before["agent"] = {**before["agent"], "checkpoint": "nano"}
    # Open since then: a run goes on by what it recorded, and a run of before by its 8.
    for kept, known in ((stored, {None}), (before, {None, 8})):
        agent = dict(kept.get("agent", {}))
        assert agent.pop("micro_batch", None) in known
        assert (agent.pop("initial_noise", None), agent.pop("check_weights", True)) == (None, True)
        assert (agent.pop("explain", None), agent.pop("think", None)) == (None, None)
        kept["agent"] = agent
        if line.startswith("eval"):
            kept["engine"] = {**kept["engine"]}
            assert kept["engine"].pop("image_size", None) is None
    assert json.dumps(stored, sort_keys=True) == json.dumps(before, sort_keys=True), "1 is not 1.0 here"


@pytest.mark.parametrize("line", [line for line in BEFORE if line.startswith("train")])
def test_a_run_of_before_goes_on(line: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(json.dumps(BEFORE[line]))
    _check_same(tmp_path, now(*line.split()))
    with pytest.raises(Exception, match="another seed"):
        _check_same(tmp_path, now(*line.split(), "seed=1"))


@pytest.mark.parametrize("agent", ["vlaser", "vlaser_explore"])
def test_an_evaluation_whose_agent_had_fewer_keys_goes_on(agent: str, tmp_path: Path) -> None:
    wanted = now("eval", f"agent={agent}", "checkpoint=nano")
    before = json.loads(json.dumps(wanted))
    for key in ("initial_noise", "chunk_noise", "rotation_noise"):
        before["agent"].pop(key, None)
    (tmp_path / "config.yaml").write_text(json.dumps(before | {"schema": 1}))
    check_same(tmp_path, wanted)
    with pytest.raises(Exception, match=r"agent\.initial_noise was None, now 0\.5"):
        check_same(tmp_path, now("eval", f"agent={agent}", "checkpoint=nano", "agent.initial_noise=0.5"))


def test_an_evaluation_of_before_goes_on(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(BEFORE["eval"] | {"schema": 1}))
    check_same(tmp_path, EvalSettings().stored())
    with pytest.raises(Exception, match="episodes"):
        check_same(tmp_path, EvalSettings(episodes=3).stored())
