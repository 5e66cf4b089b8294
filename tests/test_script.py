"""``vlaser-gym``: all commands behind one word; Hydra's ``--cfg job`` and ``-m``."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlaser_gym import __version__, cli
from vlaser_gym.__main__ import main, overview
from vlaser_gym.settings.commands import COMMAND_SETTINGS

ROOT = Path(__file__).resolve().parent.parent


def test_it_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--help"])
    assert capsys.readouterr().out.strip() == overview()
    listed = [line.split()[0] for line in overview().splitlines()[2:]]
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
