"""``vlaser-gym``: all commands behind one word; Hydra's ``--cfg job`` and ``-m``."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
import tomllib
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml

from vlaser_gym import __version__, cli
from vlaser_gym.__main__ import main, overview
from vlaser_gym.completion import SCRIPTS, candidates
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.commands import COMMAND_SETTINGS

ROOT = Path(__file__).resolve().parent.parent


def test_it_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert capsys.readouterr().out.strip() == overview()
    listed = [line.split()[0] for line in overview().splitlines()[2:-2]]
    assert listed == sorted(COMMAND_SETTINGS)


def test_it_says_its_version_and_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--version"])
    assert capsys.readouterr().out == f"vlaser-gym {__version__}\n"
    with pytest.raises(SystemExit) as ended:
        main(["evaluate"])
    assert ended.value.code == 2
    assert "Unknown command 'evaluate'" in capsys.readouterr().err


def test_a_command_s_help_is_its_own(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["vlaser-gym"])
    main(["eval", "--help"])
    assert capsys.readouterr().out.startswith("python -m vlaser_gym.eval [key=value ...]")


def test_the_project_names_the_script_and_its_version() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert project["scripts"] == {"vlaser-gym": "vlaser_gym.__main__:main"}
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == project["version"] == __version__
    assert cited["license"] == project["license"]


@pytest.mark.parametrize("words", [["--cfg", "job"], ["--cfg=job"], ["-c", "job"]])
def test_cfg_job_shows_what_would_run(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    def never(config: Any) -> None:
        raise AssertionError("nothing runs")

    cli.run("eval", never, ["task=widowx_stack_cube", *words, "agent=expert", "episodes=3"])
    shown = yaml.safe_load(capsys.readouterr().out)
    assert shown == cli.OmegaConf.to_container(
        cli.load("eval", ["task=widowx_stack_cube", "agent=expert", "episodes=3"])
    )


def test_other_configs_are_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        cli.run("eval", lambda config: None, ["--cfg", "hydra"])
    assert "--cfg job shows the config of a command; got --cfg hydra" in capsys.readouterr().err


def test_a_multirun_is_every_combination() -> None:
    lines = cli.combinations([cli._parse(text) for text in ("agent=expert,random", "task=[a,b]", "trials=1,2")])
    assert lines == [
        ["agent=expert", "task=[a,b]", "trials=1"],
        ["agent=expert", "task=[a,b]", "trials=2"],
        ["agent=random", "task=[a,b]", "trials=1"],
        ["agent=random", "task=[a,b]", "trials=2"],
    ]
    assert cli.multirun("eval", ["no equals sign"]) == 2


@pytest.mark.parametrize("statuses", [[0, 0], [0, 3]])
def test_a_multirun_goes_on_after_a_failure_and_tells_it(
    statuses: list[int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[list[str]] = []

    def stand_in(line: list[str], check: bool) -> Any:
        ran.append(line[1:])
        return subprocess.CompletedProcess(line, statuses[len(ran) - 1])

    monkeypatch.setattr(subprocess, "run", stand_in)
    monkeypatch.setattr(sys, "argv", ["x", "-m", "agent=expert,random", "episodes=1"])
    with pytest.raises(SystemExit) as ended:
        cli.start("eval")
    assert ended.value.code == max(statuses)
    assert ran == [["-m", "vlaser_gym.eval", f"agent={agent}", "episodes=1"] for agent in ("expert", "random")]
    assert "[2/2] agent=random episodes=1" in capsys.readouterr().out


@pytest.mark.slow
def test_two_agents_are_two_runs(tmp_path: Path) -> None:
    line = [sys.executable, "-m", "vlaser_gym", "eval", "-m", "agent=expert,random", "task=widowx_stack_cube"]
    options = ["episodes=1", "num_envs=1", "video=0", "report=false"]
    subprocess.run(
        [*line, *options], cwd=tmp_path, check=True, env={**__import__("os").environ, "PYTHONPATH": str(ROOT)}
    )
    assert len(list((tmp_path / "runs").glob("*/episodes.jsonl"))) == 2


def test_joblib_runs_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run waits for the other: one after another they would never end."""
    pytest.importorskip("joblib")
    together, ran = threading.Barrier(2, timeout=20), list[list[str]]()

    def stand_in(line: list[str], check: bool) -> Any:
        together.wait()
        ran.append(line[3:])
        return subprocess.CompletedProcess(line, int(line[-1] == "seed=2"))

    monkeypatch.setattr(subprocess, "run", stand_in)
    words = ["seed=1,2", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert cli.multirun("eval", words) == 1
    assert sorted(ran) == [["seed=1"], ["seed=2"]]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["hydra/launcher=slurm"], "Unknown hydra/launcher 'slurm'"),
        (["hydra.launcher.n_jobs=2"], "does not take n_jobs"),
    ],
)
def test_launchers_and_options_that_there_are_not_are_said(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.multirun("eval", ["seed=1,2", *words]) == 2
    assert said in capsys.readouterr().err


def test_submitit_is_asked_in_its_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class AutoExecutor:
        def __init__(self, folder: str, cluster: str) -> None:
            asked.update(folder=folder, cluster=cluster, jobs=[])

        def update_parameters(self, **parameters: Any) -> None:
            asked["parameters"] = parameters

        def batch(self) -> Any:
            return nullcontext()

        def submit(self, function: Any, *arguments: Any) -> Any:
            asked["jobs"].append(arguments)
            return SimpleNamespace(result=lambda: 0)

    monkeypatch.setitem(sys.modules, "submitit", SimpleNamespace(AutoExecutor=AutoExecutor))
    words = ["seed=1,2", "hydra/launcher=submitit_slurm", "hydra.launcher.timeout_min=60", "hydra.launcher.folder=logs"]
    assert cli.multirun("train", words) == 0
    assert asked == {
        "folder": "logs",
        "cluster": "slurm",
        "parameters": {"timeout_min": 60},
        "jobs": [("train", "[1/2]", ["seed=1"]), ("train", "[2/2]", ["seed=2"])],
    }


def test_a_key_is_taken_away_and_added() -> None:
    taken = cli.load("eval", ["agent=remote", "agent.url=x", "~agent.timeout", "episodes=3", "~episodes"])
    assert "timeout" not in taken.agent
    assert taken.episodes == cli.load("eval", []).episodes
    assert cli.load("eval", ["agent=random", "+agent.horizons=3"]).agent.horizons == 3
    assert cli.load("eval", ["agent=random", "++agent.horizon=3"]).agent.horizon == 3
    assert cli.combinations([cli._parse(text) for text in ("~agent.timeout", "seed=1,2")]) == [
        ["~agent.timeout", "seed=1"],
        ["~agent.timeout", "seed=2"],
    ]


@pytest.mark.parametrize(
    ("word", "kind", "said"),
    [
        ("~agent.nothing", UnknownNameError, "Unknown key 'agent.nothing'"),
        ("~nothing", UnknownNameError, "Unknown key 'nothing'"),
        ("~agent.timeout=99", InvalidConfigError, "takes a key away that has another value: 60"),
        ("+agent.timeout=3", InvalidConfigError, "adds a key that is there: leave out its"),
        ("+nothing=3", UnknownNameError, "Unknown key 'nothing'"),
    ],
)
def test_what_cannot_be_taken_away_or_added_is_said(word: str, kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=re.escape(said)):
        cli.load("eval", ["agent=remote", "agent.url=x", word])


@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("vlaser-gym ", sorted(COMMAND_SETTINGS)),
        ("vlaser-gym ev", ["eval"]),
        ("vlaser-gym eval agent=re", ["agent=remote"]),
        ("vlaser-gym eval agent=remote agent.u", ["agent.url="]),
        ("vlaser-gym eval agent=remote ~agent.u", ["~agent.url="]),
        ("vlaser-gym eval trial", ["trials="]),
        ("vlaser-gym serve protocol=", ["protocol=openpi", "protocol=vla_eval"]),
        ("vlaser-gym eval terminate_on_success=", ["terminate_on_success=true", "terminate_on_success=false"]),
        ("vlaser-gym nothing x", []),
    ],
)
def test_a_shell_is_offered_what_there_is(line: str, offered: list[str]) -> None:
    assert candidates(line) == offered


def test_bash_completes_a_value() -> None:
    """In a real bash, whose words end at the equals sign."""
    line = "vlaser-gym eval agent=rem"
    script = f"""{SCRIPTS["bash"]}
vlaser-gym() {{ {sys.executable} -m vlaser_gym "$@"; }}
COMP_LINE='{line}' COMP_POINT={len(line)} COMP_WORDS=(vlaser-gym eval agent = rem) COMP_CWORD=4
_vlaser_gym
echo "${{COMPREPLY[@]}}"
"""
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True, cwd=ROOT)
    assert done.stdout.split() == ["remote"], done.stderr


def test_the_citation_has_what_its_format_demands() -> None:
    """Required keys of CFF 1.2.0, for the software and for each reference."""
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["cff-version"] == "1.2.0"
    assert cited.keys() >= {"message", "title", "authors", "type"}
    for work in (cited, *cited["references"]):
        assert work["title"]
        assert all(author.keys() & {"name", "family-names"} for author in work["authors"])
    assert all(work.keys() >= {"type", "authors", "title"} for work in cited["references"])


def test_the_hooks_before_a_commit_fetch_nothing() -> None:
    """They are the project's own tools, in the words of CONTRIBUTING."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [source["repo"] for source in hooks["repos"]] == ["local"]
    contributing = (ROOT / "CONTRIBUTING.md").read_text()
    for hook in hooks["repos"][0]["hooks"]:
        assert hook["language"] == "system"
        assert f"`.venv/bin/{hook['name']}" in contributing


@pytest.mark.parametrize("name", ["bug", "number", "addition"])
def test_an_issue_s_form_is_one(name: str) -> None:
    """Keys and kinds of fields of the forge's forms; every field has a name of its own."""
    form = yaml.safe_load((ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml").read_text())
    assert form.keys() == {"name", "description", "labels", "body"}
    for field in form["body"]:
        assert field.keys() <= {"type", "id", "attributes", "validations"}
        assert field["type"] in ("textarea", "dropdown")
        assert field["attributes"]["label"]
        assert ("options" in field["attributes"]) == (field["type"] == "dropdown")
    assert len({field["id"] for field in form["body"]}) == len(form["body"])
    for command in re.findall(r"vlaser_gym\.(\w+)", str(form)):
        assert command in COMMAND_SETTINGS
    for page in re.findall(r"docs/\w+\.md", str(form)):
        assert (ROOT / page).is_file()
