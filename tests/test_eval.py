"""The eval command on the real simulator. Most of what evaluations promise is tested in tests/evaluation, on a fake."""

from __future__ import annotations

import base64
import io
import json
import re
import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlaser_gym import cli
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.store import read_records, read_states, read_timing
from vlaser_gym.evaluation.video import video_folder

SHORT = ("task=widowx_stack_cube,widowx_carrot_on_plate", "episodes=3", "video=0")


def score(run: Path, *overrides: str) -> None:
    cli.run("eval", eval_command.main, [*SHORT, "agent=expert", f"run={run}", *overrides])


def files(run: Path) -> dict[str, bytes]:
    names = ["episodes.jsonl", "summary.json", *sorted(str(p.relative_to(run)) for p in run.glob("states/*"))]
    return {name: (run / name).read_bytes() for name in names}


@pytest.mark.parametrize(("agent", "lanes"), [("expert", (8, 3, 1)), ("random", (8, 8))])
def test_same_settings_same_bytes_twice_and_for_any_number_of_lanes(
    tmp_path: Path, agent: str, lanes: tuple[int, ...]
) -> None:
    runs = []
    for i, num_envs in enumerate(lanes):
        score(tmp_path / str(i), f"agent={agent}", f"num_envs={num_envs}", "terminate_on_success=true")
        runs.append(files(tmp_path / str(i)))
    assert len(runs[0]) == 2 + 6
    assert all(run == runs[0] for run in runs[1:])


def test_the_table_and_the_records_say_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    score(tmp_path / "run", "episodes=2", "trials=2")
    printed = capsys.readouterr()
    records = read_records(tmp_path / "run")
    assert len(records) == 8
    for task in ("widowx_stack_cube", "widowx_carrot_on_plate"):
        wins = [r["success"] for r in records if r["task"] == task]
        (row,) = [line for line in printed.out.splitlines() if task in line and "|" in line and "[" in line]
        assert f" 4 | {100 * np.mean(wins):.1f} [" in row
    assert "mean over tasks" in printed.out
    assert str(tmp_path / "run") in printed.out
    assert "8/8 episodes" in printed.err
    assert {r["engine"] for r in records} == {"mujoco"}
    assert sum(entry["event"] == "episode" for entry in read_timing(tmp_path / "run")) == 8


def test_what_storing_and_telling_cost_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert eval_command.pace_line(50, 98.0, 1.2, 2.0) == (
        "50 episodes in 100.0 s without start-up and videos (30 per minute); "
        "3.2 % of that for storing (1.20 s), table and report (2.00 s)."
    )
    score(tmp_path / "run", "task=widowx_stack_cube", "episodes=1")
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "without start-up" in line]
    assert line.startswith("1 episode in ")
    total, share, storing, telling = (float(number) for number in re.findall(r"\d+\.\d+", line))
    assert share == pytest.approx(100 * (storing + telling) / total, abs=5)
    timing = read_timing(tmp_path / "run")[-1]
    assert timing["seconds"] < total


def test_states_replay_what_the_records_say(tmp_path: Path) -> None:
    """The object's stored path shows the success: at the end the green cube lies on the yellow one."""
    score(tmp_path / "run", "task=widowx_stack_cube", "episodes=2")
    for record in read_records(tmp_path / "run"):
        states = read_states(tmp_path / "run", record)
        green, yellow = (states[f"object/{obj.name}"] for obj in get_task(record["task"]).objects)
        assert len(green) == record["steps"] + 1
        assert record["success"] == states["flag/success"][-1]
        assert record["success"], "the expert stacks these"
        np.testing.assert_allclose(green[-1, :2], yellow[-1, :2], atol=0.02)
        assert 0.02 < green[-1, 2] - yellow[-1, 2] < 0.06
        assert abs(green[0, 2] - yellow[0, 2]) < 0.01


MY_AGENT = """
import numpy as np

class Still:
    observes = ("proprio",)

    def __init__(self, horizon=2, spoil=None):
        self.horizon, self.spoil = horizon, spoil

    def reset(self, lanes, addresses):
        pass

    def act(self, observations, lanes):
        actions = np.zeros((len(lanes), self.horizon, 7))
        if self.spoil == "number":
            actions[0, 0, 0] = np.nan
        if self.spoil == "raise":
            raise KeyError("image")
        return actions[0] if self.spoil == "shape" else actions
"""


def command(folder: Path, *arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, "-m", "vlaser_gym.eval", *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_a_class_in_the_current_folder_is_an_agent(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MY_AGENT)
    done = command(tmp_path, *SHORT, "episodes=1", "agent._target_=mine.Still", "agent.horizon=5", "run=scored")
    assert done.returncode == 0, done.stderr
    records = read_records(tmp_path / "scored")
    assert [r["agent"] for r in records] == ["mine.Still"] * 2
    assert not any(r["success"] for r in records)


def test_an_agent_that_raises_ends_the_command_with_traceback_and_sentence(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(MY_AGENT)
    done = command(tmp_path, *SHORT, "agent._target_=mine.Still", "agent.spoil=raise", "run=scored")
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback")
    assert 'raise KeyError("image")' in done.stderr
    sentence = done.stderr.splitlines()[-1]
    assert sentence.startswith("Error: mine.Still.act raised KeyError ('image'); its traceback says where. ")
    assert "scored" in sentence
    assert not (tmp_path / "scored").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["task=widowx_stack_cub"], "Unknown task 'widowx_stack_cub'"),
        (["agent=exprt"], "Unknown agent 'exprt'"),
        (["engine=mujco"], "Unknown engine 'mujco'"),
        (["engine.thread=1"], "Unknown option of engine 'mujoco' 'thread'"),
        (["num_envs=0"], "num_envs must be at least 1; got 0"),
        (["run=mine.py/run"], "Cannot use the run directory mine.py/run"),
        (["agent._target_=mine.Still", "agent.spoil=number"], "mine.Still.act returned a number that is not finite"),
        (
            ["agent._target_=mine.Still", "agent.spoil=shape"],
            "mine.Still.act must return one chunk of actions per environment",
        ),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    (tmp_path / "mine.py").write_text(MY_AGENT)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as caught:
        cli.run("eval", eval_command.main, [*SHORT, *arguments])
    printed = capsys.readouterr()
    assert caught.value.code == 2
    assert message in printed.err
    assert printed.err.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} <= {"mine.py", "__pycache__"}


def test_bad_input_from_the_shell(tmp_path: Path) -> None:
    done = command(tmp_path, "task=widowx_stack_cub")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: Unknown task")
    assert done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


#: An EGL without any vendor's driver.
NO_DRIVER = {"__EGL_VENDOR_LIBRARY_FILENAMES": "/nonexistent", "MUJOCO_GL": "egl"}


def test_without_a_driver_scores_stand_and_pictures_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only the processes that render load a driver, so the environment of this one tells them."""
    for name, value in NO_DRIVER.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    score(Path("scored"), "task=widowx_stack_cube", "episodes=1", "video=1", "terminate_on_success=true")
    assert len(read_records(tmp_path / "scored")) == 1
    assert "No videos: No images can be made here" in capsys.readouterr().out
    assert {path.name for path in tmp_path.iterdir()} == {"scored"}
    (tmp_path / "seeing.py").write_text(MY_AGENT.replace('("proprio",)', '("image",)'))
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SystemExit) as caught:
        score(Path("seen"), "task=widowx_stack_cube", "episodes=1", "agent._target_=seeing.Still")
    assert caught.value.code == 2
    assert "Error: No images can be made here" in capsys.readouterr().err
    assert not (tmp_path / "seen").exists()


@pytest.mark.slow
def test_videos_at_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    score(tmp_path / "scored", "task=widowx_stack_cube", "episodes=3", "video=1", "agent=random")
    (video,) = video_folder(tmp_path / "scored").resolve().iterdir()
    assert video.parent.parent == tmp_path / "videos"
    assert video.name == "widowx_stack_cube.default.grid-0000.trial-0.failure.mp4"
    printed = capsys.readouterr().out
    assert str(video.relative_to(tmp_path)) in printed
    assert f"Videos of 1 episodes; 2 were not rendered: python -m vlaser_gym.render run={tmp_path}/scored" in printed
    page = (tmp_path / "scored" / "report.html").read_text()
    tile = json.loads(re.search(r'id="data">(.*?)</script>', page, re.DOTALL)[1])["episodes"][0]  # type: ignore[index]
    picture = Image.open(io.BytesIO(base64.b64decode(tile["sides"][0]["picture"])))
    assert picture.size == (208, 156)
    assert np.asarray(picture).std() > 20, "the scene is seen"


@pytest.fixture
def eval_processes() -> BaseContext:
    """Makes processes that have the command loaded: what is tested is how they end, not how they start."""
    context = get_context("forkserver")
    context.set_forkserver_preload(["vlaser_gym.commands.eval", "vlaser_gym.agents.vlaser.agent", "mujoco.batch"])
    return context


def episodes_in(run: Path) -> int:
    log = run / "episodes.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0


@pytest.mark.parametrize(
    ("agent", "overrides"),
    [
        pytest.param("expert", ("episodes=30",), marks=pytest.mark.slow),
        pytest.param("vlaser_nano", ("task=widowx_stack_cube", "episodes=32"), marks=pytest.mark.long),
    ],
)
def test_killed_twenty_times_it_ends_with_the_same_records(
    tmp_path: Path, eval_processes: BaseContext, agent: str, overrides: tuple[str, ...]
) -> None:
    """Half of the kills come at any moment of the start, half shortly after an episode has ended."""
    settings = [f"agent={agent}", *overrides]
    score(tmp_path / "whole", *settings)
    run = tmp_path / "run"
    rng = np.random.default_rng(0)
    for kill in range(20):
        process = eval_processes.Process(  # type: ignore[attr-defined]
            target=cli.run, args=("eval", eval_command.main, [*SHORT, *settings, f"run={run}", "num_envs=2"])
        )
        before = episodes_in(run)
        process.start()
        deadline = time.monotonic() + 300
        while kill % 2 and episodes_in(run) == before and process.is_alive() and time.monotonic() < deadline:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.1 if kill % 2 else 1.0))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL, "it should have been killed on its way"
        assert episodes_in(run) > before or kill % 2 == 0
    assert not (run / "summary.json").exists()
    score(run, *settings, "num_envs=3")
    assert files(run) == files(tmp_path / "whole")
    assert json.loads((run / "summary.json").read_text())["tasks"][0]["n"] >= 30
