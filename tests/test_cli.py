from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

from vlaser_gym import cli
from vlaser_gym.agents.base import agent_code
from vlaser_gym.errors import GymError, InvalidConfigError, UnknownNameError


def test_defaults_are_those_of_the_file() -> None:
    config = cli.load("eval")
    assert (config.task, config.num_envs, config.run, config.agent.name, config.engine.name) == (
        None,
        8,
        None,
        "vlaser",
        "mujoco",
    )


def test_groups_come_as_files() -> None:
    config = cli.load("eval", ["agent=random", "agent.horizon=2"])
    assert config.agent == {
        "name": "random",
        "_target_": "vlaser_gym.agents.random.RandomAgent",
        "horizon": 2,
    }


def test_a_class_of_ones_own_needs_no_plus_and_inherits_nothing() -> None:
    config = cli.load("eval", ["agent._target_=pkg.Mine", "agent.temperature=0.5", "agent.deep.er=x"])
    assert config.agent == {"name": "pkg.Mine", "_target_": "pkg.Mine", "temperature": 0.5, "deep": {"er": "x"}}
    assert cli.load("eval", ["agent=random", "agent._target_=pkg.Mine"]).agent.name == "random"


def test_commas_make_lists() -> None:
    assert cli.load("eval", ["task=a,b"]).task == cli.load("eval", ["task=[a,b]"]).task == ["a", "b"]


@pytest.mark.parametrize("path", ["runs/lr=0.1", "my runs/é", "a'b", "C:\\x", "runs/(1)", "a{b", "x#y", "50%"])
def test_paths_may_hold_what_paths_hold(path: str) -> None:
    assert cli.load("eval", [f"run={path}"]).run == path


@pytest.mark.parametrize(
    ("override", "error", "message"),
    [
        ("num_env=3", UnknownNameError, "nearest: num_envs"),
        ("task.x=3", UnknownNameError, "Unknown key 'task.x'"),
        ("+new=3", UnknownNameError, "Unknown key 'new'"),
        ("hydra.run.dir=x", UnknownNameError, "Unknown key"),
        ("agent=rnadom", UnknownNameError, "Unknown agent 'rnadom'"),
        ("engine=maniskil", UnknownNameError, "Unknown engine 'maniskil'"),
        ("agent=null", UnknownNameError, "Unknown agent"),
        ("agent={a:1}", UnknownNameError, "Unknown agent"),
        ("agent=random,expert", UnknownNameError, "Unknown agent"),
        ("task", InvalidConfigError, "Cannot read 'task': expected key=value"),
        ("~agent", InvalidConfigError, "Cannot read '~agent'"),
        ("agent@x=random", InvalidConfigError, "Cannot read"),
        ("--multirun", InvalidConfigError, "Cannot read '--multirun'"),
        ("task=[a,b", InvalidConfigError, "Cannot read 'task=[a,b'"),
        ("task=${nothing}", InvalidConfigError, "nothing"),
        ("agent=custom", InvalidConfigError, "agent._target_ has no default: give agent._target_=VALUE"),
    ],
)
def test_mistakes_are_one_sentence(override: str, error: type[GymError], message: str) -> None:
    with pytest.raises(error) as caught:
        cli.load("eval", [override])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_key_without_default_is_asked_for() -> None:
    with pytest.raises(InvalidConfigError, match="run has no default: give run=VALUE"):
        cli.load("render")
    with pytest.raises(UnknownNameError, match="Unknown key 'agent'"):
        cli.load("render", ["run=x", "agent=random"])


KEYS = st.sampled_from(
    ["task", "num_envs", "agent", "agent.x", "agent._target_", "engine", "run", "nonsense", "", "+task"]
)


@settings(max_examples=25, deadline=None)
@given(KEYS, st.text(max_size=12))
def test_any_text_is_read_or_refused_in_a_sentence(key: str, value: str) -> None:
    with suppress(GymError):
        cli.load("eval", [f"{key}={value}"])


@dataclass
class Lists:
    names: list[str] = field(default_factory=list)
    rates: list[float] | None = None


@pytest.mark.parametrize(("key", "value"), [("names", "x"), ("names", None), ("rates", 65), ("rates", {"a": 1})])
def test_what_is_no_list_is_one_plain_sentence(key: str, value: Any) -> None:
    with pytest.raises(InvalidConfigError, match=rf"{key} must be a list such as {key}=\[A,B\]; got .*\.$"):
        cli.typed(Lists, OmegaConf.create({key: value}))
    assert cli.typed(Lists, OmegaConf.create({"names": ["x"], "rates": None})) == Lists(["x"])


def test_help_names_every_key_with_its_default_and_what_it_means(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run("eval", lambda config: pytest.fail("ran"), ["--help"])
    out = capsys.readouterr().out
    for key, value in (("num_envs", "8"), ("run", "null"), ("task", "null"), ("engine", "mujoco")):
        assert f"\n  {key}={value}" in out
    assert "Episodes that run at the same time" in out
    assert "random: Small random motions" in out
    for key in cli.load("eval"):
        assert f"\n  {key}=" in out


def test_a_command_changes_neither_folder_nor_logging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen: list[Any] = []
    monkeypatch.setattr(sys, "argv", ["eval", "num_envs=3"])
    cli.run("eval", lambda config: seen.append((config.num_envs, os.getcwd())))
    assert seen == [(3, str(tmp_path))]
    assert not list(tmp_path.iterdir())


def ending(main: Any, arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[Any, str]:
    with pytest.raises(SystemExit) as caught:
        cli.run("eval", main, arguments)
    return caught.value.code, capsys.readouterr().err


def test_mistakes_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    code, said = ending(lambda config: pytest.fail("ran"), ["num_env=3"], capsys)
    assert code == 2
    assert said.startswith("Error: Unknown key 'num_env'")
    assert said.count("\n") == 1


def test_errors_of_the_command_end_with_status_2(capsys: pytest.CaptureFixture[str]) -> None:
    def main(config: Any) -> None:
        raise InvalidConfigError("This will not do.")

    assert ending(main, [], capsys) == (2, "Error: This will not do.\n")


def test_what_an_agent_raised_stands_above_its_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    def main(config: Any) -> None:
        with agent_code("mine.Agent.act"):
            int("seven")

    code, said = ending(main, [], capsys)
    assert code == 2
    assert said.startswith("Traceback (most recent call last):")
    assert 'int("seven")' in said
    *_, cause, sentence = said.splitlines()
    assert cause.startswith("ValueError: invalid literal")
    assert sentence.startswith("Error: mine.Agent.act raised ValueError (invalid literal")
    assert said.count("Traceback") == 1


def test_ctrl_c_is_one_line_and_status_130(capsys: pytest.CaptureFixture[str]) -> None:
    def main(config: Any) -> None:
        raise KeyboardInterrupt("Stopped.")

    assert ending(main, [], capsys) == (130, "\nStopped.\n")


def test_defects_keep_their_traceback() -> None:
    def main(config: Any) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cli.run("eval", main, [])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("library", "waits"), [("_multiarray_umath", (0, 0.05, 0.1, 0.2)), ("libtorch", (0.1, 0.3, 0.6, 1))]
)
def test_ctrl_c_while_modules_are_imported_ends_in_silence(
    library: str, waits: tuple[float, ...], tmp_path: Path
) -> None:
    """In the middle of a compiled module's import it would become an ImportError with a traceback."""
    arguments = [sys.executable, "-m", "vlaser_gym.train", "algo=dpo", f"run={tmp_path / 'run'}"]
    for wait in waits:
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while library not in Path(f"/proc/{process.pid}/maps").read_text():
            time.sleep(0.01)
        time.sleep(wait)
        process.send_signal(signal.SIGINT)
        output = process.communicate(timeout=100)[0]
        assert process.returncode in (130, 2), output
        assert "Traceback" not in output
