"""The commands in README and docs/: the shell reads each block, and the package takes every key and value in it.

A block is given to bash with all programs replaced by functions that write down their words: what is checked is what a
reader's shell would pass on. Commands of this package have their keys, values, stages and names of tasks checked as
when they begin; of other programs a reason stands in ``OTHERS`` why that is all.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlaser_gym import agents, cli
from vlaser_gym.agents.vlaser import benchmark, serving_benchmark
from vlaser_gym.agents.vlaser.shipped import SHIPPED_NAMES
from vlaser_gym.commands.recipe import read_recipe
from vlaser_gym.envs.tasks import resolve
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import ALGORITHM_SETTINGS
from vlaser_gym.settings.commands import COMMAND_SETTINGS
from vlaser_gym.training import benchmark as training_benchmark

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
EXTRAS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
#: Programs of others, and why their words are not checked further.
OTHERS = {
    "lerobot-train": "of LeRobot, in an environment of its own (tests/agents/test_lerobot_real.py)",
    "lerobot-eval": "of LeRobot, likewise",
    "git": "the repository's address is the reader's; what is taken out of an old commit lies in no source archive",
    "mkdir": "of the system",
    "tar": "of the system",
    "cd": "into what git fetched",
    ".": "the environment that was just made",
    "kill": "ends what the block began",
    "vla-eval": "another project's; tests/agents/test_vla_eval.py runs it where it is installed",
    "pytest": "tests/test_readme.py: continuous integration runs the very line",
}
#: What a reader fills in: ``FOLDER``, ``MY_DATA``, and names of files that the pages have made before.
PLACEHOLDER = re.compile(r"^(?:[A-Z][A-Z0-9_]*|.*\.ya?ml|[\w.]+:\w+)$")
#: Checkpoints that are folders beside the reader, or words of a policy from outside.
FOLDERS = {"", "new", "before", "OpenGVLab-folder"}
_BLOCK = re.compile(r"^( *)```(\w*)[^\n]*\n(.*?)^ *```", re.MULTILINE | re.DOTALL)
#: Of other programs only their words are wanted; of the loop over seeds and the functions the shell itself makes sense.
_RECORDING = """
log() { printf '%s\\0' "$@" $'\\1' >> "$LOG"; }
for program in python python3.11 python3.12 torchrun pytest pip git mkdir tar kill cd \\
    vla-eval lerobot-train lerobot-eval; do
    eval "$program() { log $program \\"\\$@\\"; }"
done
"""


def blocks(language: str) -> list[Any]:
    """All blocks of a language, with the page that has them."""
    found = []
    for page in PAGES:
        for number, match in enumerate(_BLOCK.finditer(page.read_text()), 1):
            if match[2] == language:
                found.append(pytest.param(match[3], id=f"{page.name}-{number}"))
    return found


def spans() -> list[Any]:
    """Commands within sentences: with ``python -m``, or a command's name and nothing but keys behind it."""
    found = []
    for page in PAGES:
        for text in dict.fromkeys(re.findall(r"`([^`\n]+)`", _BLOCK.sub("", page.read_text()))):
            first, *rest = text.split(" ")
            is_short = first in COMMAND_SETTINGS and rest and all(re.match(r"[\w.]+=[^.]", word) for word in rest)
            if text.startswith("python -m vlaser_gym") or is_short:
                found.append(pytest.param(text, id=f"{page.name}-{text}"))
    return found


def recorded(block: str, folder: Path) -> list[list[str]]:
    """The command lines that bash makes of a block."""
    (folder / "activate").touch()
    block = re.sub(r"(?:\.venv|lerobot)/bin/", "", block)
    log = folder / "log"
    log.touch()
    done = subprocess.run(
        ["bash", "-c", _RECORDING + block],
        cwd=folder,
        env={"LOG": str(log), "PATH": f"{folder}:/usr/bin:/bin", "HOME": "/home/reader"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "syntax error" not in done.stderr, done.stderr
    assert "not found" not in done.stderr, done.stderr
    lines: list[list[str]] = [[]]
    for word in log.read_text().split("\0")[:-1]:
        if word == "\1":
            lines.append([])
        else:
            lines[-1].append(word)
    return lines[:-1]


def given(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A command's words as ``key=value``, also those that need no key."""
    module = importlib.import_module(f"vlaser_gym.commands.{command}")
    seen: list[list[str]] = []
    monkeypatch.setattr(module, "run", lambda name, main, argv=None: seen.append(words if argv is None else list(argv)))
    monkeypatch.setattr("sys.argv", [command, *words])
    module.command()
    return seen[0]


def check_names(config: Any) -> None:
    """Names of tasks, and of checkpoints that are no paths, exist; what a reader fills in is passed over."""
    for task in cli.words(config.get("task")) if isinstance(config.get("task"), str) else config.get("task") or ():
        if task and not PLACEHOLDER.match(str(task)):
            resolve(str(task))
    for key in ("checkpoint", "init"):
        for name in cli.words(config.get(key)):
            if "/" not in name and "." not in name and not PLACEHOLDER.match(name) and name not in FOLDERS:
                assert name.removeprefix("random:") in SHIPPED_NAMES, f"{key}={name}"


def check_command(command: str, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The command takes these words, as far as that can be told before it begins."""
    if {"--help", "--cfg"} & set(words):
        cli.help_text(command, [word for word in words if word != "--help"])
        return
    line = given(command, words, monkeypatch)
    config = cli.load(command, line)
    settings = cli.typed(COMMAND_SETTINGS[command], config)
    check_names(config)
    if command == "train":
        cli.typed(ALGORITHM_SETTINGS[str(config.algo.name)], config.algo, "algo.")
    if command == "recipe" and not PLACEHOLDER.match(str(config.recipe)):
        for stage in read_recipe(config.recipe, "runs/x", settings.stages, settings.top):
            check_names(cli.load(stage.command, stage.words))
    agent = dict(config.get("agent") or {})
    if str(agent.get("_target_", "")).startswith("vlaser_gym."):
        path = str(agent.pop("_target_"))
        agent.pop("name", None)
        module, _, name = path.rpartition(".")
        agents._check_arguments(path, getattr(importlib.import_module(module), name), agent)


def check_module(module: str, words: list[str]) -> None:
    """Keys of the benchmarks that are no commands of their own."""
    keys = {word.partition("=")[0] for word in words}
    if module == "vlaser_gym.agents.vlaser.benchmark":
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(benchmark, "measure", lambda *_, **__: [])
            patch.setattr(benchmark.torch.cuda, "get_device_name", lambda: "a GPU")
            benchmark.main(words)
        return
    known = {
        "vlaser_gym.training.benchmark": training_benchmark.Options,
        "vlaser_gym.agents.vlaser.serving_benchmark": serving_benchmark.Options,
    }
    assert keys <= {entry.name for entry in fields(known[module])}


def check_python(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """``python`` with a module of this package, a script of the repository, or a line of code."""
    if words[0] == "-c":
        compile(words[1], "<docs>", "exec")
    elif words[0] != "-m":
        assert (ROOT / words[0]).is_file(), words[0]
    elif words[1] in ("venv", "pytest"):
        assert all((ROOT / word).exists() for word in words[2:] if word.startswith("tests/")), words
    else:
        command = words[1].removeprefix("vlaser_gym.")
        if command in COMMAND_SETTINGS:
            check_command(command, words[2:], monkeypatch)
        else:
            check_module(words[1], words[2:])


def check_pip(words: list[str]) -> None:
    """Extras and files of constraints that this project has."""
    assert words[0] == "install"
    for extras in re.findall(r"^(?:\.|vlaser-gym)\[([\w,]+)\]$", "\n".join(words), re.MULTILINE):
        assert set(extras.split(",")) <= EXTRAS.keys()
    for option, value in pairwise(words):
        assert option != "-c" or (ROOT / value).is_file(), value


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(ROOT)
    return


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_says_its_language(page: Path) -> None:
    languages = [match[2] for match in _BLOCK.finditer(page.read_text())]
    assert set(languages) <= {"bash", "python", "text", "yaml"}, languages


@pytest.mark.parametrize("block", blocks("bash"))
def test_every_command_of_a_block_is_valid(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = recorded(block, tmp_path)
    assert lines, "a block of commands with none"
    for program, *words in lines:
        if program in ("python", "python3.11", "python3.12"):
            check_python(words, monkeypatch)
        elif program == "torchrun":
            check_python(words[words.index("-m") :], monkeypatch)
        elif program == "pip":
            check_pip(words)
        else:
            assert program in OTHERS, program


@pytest.mark.parametrize("text", spans())
def test_every_command_in_a_sentence_is_valid(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = shlex.split(text.rstrip(" ."))
    command = words[2].removeprefix("vlaser_gym.") if words[0] == "python" else words[0]
    if command.isupper():
        return
    keys = words[3:] if words[0] == "python" else words[1:]
    assert command in COMMAND_SETTINGS, command
    if "my_module" in text or not keys:
        return
    try:
        check_command(command, keys, monkeypatch)
    except InvalidConfigError as error:
        if "has no default" not in str(error):  # a sentence need not give all that a command needs
            raise


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_yaml_block_is_yaml(block: str) -> None:
    assert isinstance(yaml.safe_load(block), dict)


@pytest.mark.parametrize("block", blocks("python"))
def test_every_python_block_compiles(block: str) -> None:
    compile(block, "<docs>", "exec")


def test_what_is_wrong_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key, a value, a task, a checkpoint and an agent's key that do not exist; and a block the shell cannot read."""
    for line in (
        "eval chekpoint=x",
        "eval episodes=many",
        "eval task=widowx_stack_cubes",
        "train algo=sft init=nanoo",
        "train algo.clip_rang=0.1 algo=ppo",
        "eval agent=vlaser agent.flow_steps=3",
        "recipe first_rl stages.ppoo.seed=1",
    ):
        command, *words = line.split()
        with pytest.raises((cli.GymError, AssertionError)):
            check_command(command, words, monkeypatch)
    with pytest.raises(AssertionError, match="syntax error"):
        recorded("python -m vlaser_gym.eval (", tmp_path)
    lines = recorded('f() { python -m x "$@" a=1; }\nfor s in 0 1; do f b=$s; done  # twice', tmp_path)
    assert lines == [["python", "-m", "x", f"b={s}", "a=1"] for s in (0, 1)]
