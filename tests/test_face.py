"""The package's own functions: what the commands do, from a script or a notebook."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vlaser_gym
from vlaser_gym import cli
from vlaser_gym.agents.random import RandomAgent
from vlaser_gym.commands import compare as compare_command
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.errors import GymError, InvalidConfigError, UnknownNameError
from vlaser_gym.evaluation.statistics import wilson
from vlaser_gym.evaluation.store import read_records
from vlaser_gym.face import overrides

TASK = "widowx_stack_cube"


def run(code: str, folder: Path) -> str:
    """In an interpreter of its own, as a script of somebody else's."""
    done = subprocess.run(
        [sys.executable, "-c", code, "--not", "ours"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
def test_importing_every_module_leaves_the_functions(tmp_path: Path) -> None:
    """Modules ``train``, ``collect`` and ``compare`` exist for ``python -m`` and would hide them."""
    code = """
import importlib, pkgutil, vlaser_gym
first = [getattr(vlaser_gym, name) for name in vlaser_gym.__all__]
names = [found.name for found in pkgutil.walk_packages(vlaser_gym.__path__, "vlaser_gym.")]
assert {"vlaser_gym.train", "vlaser_gym.collect", "vlaser_gym.compare", "vlaser_gym.eval"} < set(names)
for name in names:
    importlib.import_module(name)
assert [getattr(vlaser_gym, name) for name in vlaser_gym.__all__] == first
import vlaser_gym.train
from vlaser_gym import collect, compare, train
for function, keys in ((vlaser_gym.train, {"algo": "pppo"}), (train, {"algo": "pppo"}), (collect, {"agent": "exprt"}),
                       (compare, {"count": "some"}), (vlaser_gym.compare, {}),
                       (vlaser_gym.evaluate, {"task": "stack"})):
    try:
        function(**keys)
    except vlaser_gym.errors.GymError as error:
        print(error)
"""
    assert [line.split(":")[0] for line in run(code, tmp_path).splitlines()] == [
        *("Unknown algo 'pppo'", "Unknown algo 'pppo'", "Unknown agent 'exprt'"),
        *("A comparison needs two runs or more; got 0.",) * 2,
        "Unknown task 'stack'",
    ]


@pytest.mark.parametrize("name", ["train", "collect", "compare", "eval"])
def test_the_commands_run_all_the_same(name: str) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", f"vlaser_gym.{name}", "--help"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"python -m vlaser_gym.{name} [key=value ...]")


def test_a_process_that_is_started_anew_finds_its_module(tmp_path: Path) -> None:
    """``spawn`` imports the main module of ``python -m vlaser_gym.train`` under the name ``__mp_main__``."""
    code = (
        "import runpy; print(runpy.run_module('vlaser_gym.train', run_name='__mp_main__', alter_sys=True)['__name__'])"
    )
    assert run(code, tmp_path).strip() == "__mp_main__"


def test_importing_the_package_takes_no_half_second() -> None:
    """In seconds of the processor, without those of the interpreter's own start; the least of five.

    On a machine that is slower at the moment: no more than twice what Gymnasium alone takes, which is part of it.
    """

    def seconds(code: str) -> float:
        before = os.times()
        subprocess.run([sys.executable, "-c", code], check=True)
        after = os.times()
        return sum(after[2:4]) - sum(before[2:4])  # of children, user and system

    ours, gymnasiums = (
        min(seconds(code) - seconds("") for _ in range(5)) for code in ("import vlaser_gym", "import gymnasium")
    )
    assert ours < max(0.5, 2 * gymnasiums)


def test_what_is_offered_is_listed_and_what_is_not_is_said() -> None:
    assert set(vlaser_gym.__all__) <= set(dir(vlaser_gym))
    assert all(callable(getattr(vlaser_gym, name)) for name in vlaser_gym.__all__)
    with pytest.raises(AttributeError, match="evaluation_of_all"):
        _ = vlaser_gym.evaluation_of_all


def test_evaluate_gives_what_the_command_stores(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = vlaser_gym.evaluate("expert", task=TASK, episodes=3, video=0, run=tmp_path / "function")
    assert capsys.readouterr().out == ""
    cli.run("eval", eval_command.main, ["agent=expert", f"task={TASK}", "episodes=3", "video=0", f"run={tmp_path}/it"])
    names = ("episodes.jsonl", "summary.json")
    assert [(tmp_path / "it" / n).read_bytes() for n in names] == [(found.path / n).read_bytes() for n in names]
    assert found.records == read_records(tmp_path / "it")
    wins = sum(record["success"] for record in found.records)
    low, high = wilson(wins, 3)
    assert found.rates == {TASK: (wins / 3, low, high, 3)}
    assert found.mean.rate == wins / 3
    printed = capsys.readouterr().out
    rows = [line for line in printed.splitlines() if line.startswith(f"| {TASK}")]
    assert len(rows) == 2
    # The pace is another one; success and its interval are the same words.
    shown = next(line for line in repr(found).splitlines() if line.startswith(f"| {TASK}"))
    assert rows[0].split("|")[:5] == shown.split("|")[:5]
    assert found.notes[0] == f"Run directory: {tmp_path}/function"


class Still:
    """No class of the package, and with something to build it from that no command line could hold."""

    observes = ("proprio",)

    def __init__(self, action: np.ndarray) -> None:
        self.action = action

    def reset(self, lanes: np.ndarray, addresses: list) -> None: ...

    def act(self, observations: dict, lanes: np.ndarray) -> np.ndarray:
        return np.tile(self.action, (len(lanes), 5, 1))


def test_an_agent_object_is_scored(tmp_path: Path) -> None:
    found = vlaser_gym.evaluate(Still(np.zeros(7)), task=TASK, episodes=1, video=0, report=False, run=tmp_path / "run")
    assert found.records[0]["agent"] == f"{__name__}.Still"
    assert found.rates[TASK].rate == 0.0
    with pytest.raises(InvalidConfigError, match="got a object without reset"):
        vlaser_gym.evaluate(object(), task=TASK)
    with pytest.raises(InvalidConfigError, match="acts in this process; got launcher=ray"):
        vlaser_gym.evaluate(Still(np.zeros(7)), task=TASK, launcher="ray")
    mapped = vlaser_gym.evaluate(
        {"name": "mine", "_target_": f"{RandomAgent.__module__}.RandomAgent", "horizon": 3},
        task=[TASK, "widowx_carrot_on_plate"],
        **{"episodes": 1, "video": 0, "report": False, "run": tmp_path / "mapped", "terminate_on_success": True},
    )
    assert [record["agent"] for record in mapped.records] == ["mine", "mine"]
    assert set(mapped.rates) == {TASK, "widowx_carrot_on_plate"}


def test_compare_says_what_the_command_prints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    small = {"task": TASK, "episodes": 2, "video": 0, "report": False}
    a = vlaser_gym.evaluate("expert", run=tmp_path / "a", **small)
    b = vlaser_gym.evaluate("random", run=tmp_path / "b", **small)
    found = vlaser_gym.compare(a, str(tmp_path / "b"), json=tmp_path / "it.json")
    assert found.comparison.against[0].overall.difference == b.mean.rate - a.mean.rate
    assert json.loads((tmp_path / "it.json").read_text())["runs"] == ["a", "b"]
    assert found.notes == (f"JSON: {tmp_path}/it.json",)
    capsys.readouterr()
    cli.run("compare", compare_command.main, compare_command.overrides([f"{tmp_path}/a", f"{tmp_path}/b"]))
    assert repr(found).removesuffix(f"\n{found.notes[0]}") == capsys.readouterr().out.strip()
    with pytest.raises(InvalidConfigError, match=r"power\.plan"):
        vlaser_gym.compare(plan=[65, 70])


@pytest.mark.slow
def test_collect_and_train_in_a_script_of_five_lines(tmp_path: Path) -> None:
    code = f"""
import vlaser_gym
data = vlaser_gym.collect("expert", {TASK!r}, episodes=2, image_size=64, output="data set")
found = vlaser_gym.train("sft", "nano", data=data, run="it's", threads=1, evaluate_episodes=0, log_every=1,
                         **{{"algo.steps": 2, "algo.batch_size": 4}})
print("\\n", found.checkpoint, found.metrics["step"])
"""
    assert run(code, tmp_path).splitlines()[-1].strip() == "it's/checkpoint 2"
    assert (tmp_path / "it's" / "checkpoint" / "model.safetensors").is_file()


def test_keys_and_values_that_make_no_sense_are_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"Unknown key 'episode'.*episodes"):
        vlaser_gym.evaluate("expert", episode=3)
    with pytest.raises(InvalidConfigError, match="seed should be a text, a path, a number"):
        vlaser_gym.train("ppo", seed=object())
    with pytest.raises(InvalidConfigError, match="call it once for each"):
        vlaser_gym.train("sft", ["nano", "other"])
    with pytest.raises(GymError, match=r"algo\.steps|steps"):
        vlaser_gym.train({"name": "sft", "steps": 0}, run=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "text", ["a'b", "back\\slash", "end\\", "x=y, z", "[1]", "true", "null", "5", "é $ # %", 'a"b']
)
def test_any_text_arrives_as_it_is(text: str) -> None:
    assert cli.load("train", overrides("train", run=text, data=[text, text])).run == text
    assert cli.load("train", overrides("train", run="r", data=[text, text])).data == [text, text]


def test_values_keep_their_types() -> None:
    keys = {
        "seed": np.int64(3),
        "max_minutes": 1e-5,
        "algo": {"name": "ppo", "freeze": [], "lora": 2, "flow_steps": None},
    }
    config = cli.load("train", overrides("train", settings={"horizon": 8}, **keys))
    assert (config.seed, config.max_minutes, config.algo.freeze, config.algo.lora) == (3, 1e-5, [], 2)
    assert config.algo.flow_steps is None
    assert config.settings == {"horizon": 8}
    assert cli.load("eval", overrides("eval", engine={"threads": 2}, report=False)).engine.threads == 2


@pytest.mark.slow
def test_a_scheduler_s_signal_ends_training_and_not_the_script(tmp_path: Path) -> None:
    """It raised SystemExit: whatever the script had open was gone, and the result with it."""
    small = f"{TASK!r}, threads=1, device='cpu', evaluate_episodes=0, run='it', num_envs=2, max_minutes=5"
    code = f"""
import os, signal
import vlaser_gym
from vlaser_gym.training.ppo import PPO
step = PPO.step
def stopped(self):
    os.kill(os.getpid(), signal.SIGTERM)
    return step(self)
PPO.step = stopped
keys = {{"name": "ppo", "iterations": 2, "n_steps": 2, "batch_size": 4, "epochs": 1, "critic_warmup": 0}}
first = vlaser_gym.train(keys, "nano", task={small})
PPO.step = step
second = vlaser_gym.train(keys, "nano", task={small})
assert first.path == second.path and first.checkpoint.is_dir()
print([(found.finished, found.stopped_by, found.metrics["step"]) for found in (first, second)])
"""
    assert run(code, tmp_path).splitlines()[-1] == "[(False, 15, 4), (True, None, 8)]"
