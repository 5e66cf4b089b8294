"""What can break does: no traceback without a sentence, no finished episode lost, no wrong denominator."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_env import Reacher, make_fake_env
from hypothesis import HealthCheck, example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from test_evaluator import files, score

from vlaser_gym import cli
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.errors import AgentError, AgentTimeoutError, GymError, InvalidActionError, StorageError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.patience import Patience
from vlaser_gym.evaluation.plan import plan_episodes
from vlaser_gym.evaluation.store import read_records

HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """Files of the evaluation that nothing disturbed."""
    path = tmp_path_factory.mktemp("whole") / "run"
    score(path)
    return files(path)


def is_part_of(run: Path, whole: dict[str, bytes]) -> int:
    """Number of finished episodes; each is stored as it would be without the fault."""
    lines = set(whole["episodes.jsonl"].splitlines())
    mine = (run / "episodes.jsonl").read_bytes().splitlines()
    assert set(mine) <= lines
    assert len(mine) == len(set(mine)) == len(read_records(run))
    assert not (run / "summary.json").exists()
    return len(mine)


# Agents


def act_after(monkeypatch: pytest.MonkeyPatch, decisions: int, instead: Any) -> None:
    """The agent acts as always for some decisions, then differently."""
    whole_act = Reacher.act
    count = iter(range(10**6))

    def act(self: Reacher, *seen: Any) -> Any:
        actions = whole_act(self, *seen)
        return actions if next(count) < decisions else instead(actions)

    monkeypatch.setattr(Reacher, "act", act)


def test_an_agent_that_returns_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]) -> None:
    with monkeypatch.context() as patch:
        act_after(patch, 9, lambda actions: actions * np.nan)
        with pytest.raises(InvalidActionError, match=r"fake_env\.Reacher\.act returned a number that is not finite"):
            score(tmp_path / "run", "num_envs=4")
    assert is_part_of(tmp_path / "run", whole) == 8
    score(tmp_path / "run")
    assert files(tmp_path / "run") == whole


def test_an_agent_that_fails_is_named_with_its_traceback_and_what_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]
) -> None:
    def fail(actions: Any) -> Any:
        raise ZeroDivisionError("division by zero")

    with monkeypatch.context() as patch:
        act_after(patch, 9, fail)
        with pytest.raises(AgentError) as caught:
            score(tmp_path / "run", "num_envs=4")
    assert str(caught.value) == (
        "fake_env.Reacher.act raised ZeroDivisionError (division by zero); its traceback says where. 8 finished "
        f"episodes are stored: the same command with run={tmp_path / 'run'} goes on after them."
    )
    assert 'raise ZeroDivisionError("division by zero")' in caught.value.trace
    assert is_part_of(tmp_path / "run", whole) == 8
    score(tmp_path / "run")
    assert files(tmp_path / "run") == whole


def test_an_agent_that_fails_at_once_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    act_after(monkeypatch, 0, lambda actions: actions["arm"])
    with pytest.raises(
        AgentError, match=rf"nothing is stored in {tmp_path / 'run'}, and the same command begins again"
    ):
        score(tmp_path / "run", "num_envs=4")
    assert not (tmp_path / "run").exists()


def test_an_agent_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, whole: dict[str, bytes]) -> None:
    hung = threading.Event()
    with monkeypatch.context() as patch:
        act_after(patch, 9, lambda actions: hung.wait(60))
        with pytest.raises(AgentTimeoutError, match=r"Reacher\.act took more than 0\.5 s") as caught:
            score(tmp_path / "run", "num_envs=4", "agent_timeout=0.5")
        hung.set()
    assert "\n" not in str(caught.value)
    assert is_part_of(tmp_path / "run", whole) == 8
    score(tmp_path / "run", "agent_timeout=60")
    assert files(tmp_path / "run") == whole


def test_patience_hands_on_results_and_errors() -> None:
    patience = Patience(5.0, "agent")
    threads = [patience(threading.get_ident) for _ in range(3)]
    assert len(set(threads)) == 1
    assert threads[0] != threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        patience(lambda: 1 / 0)

    def own_timeout() -> None:
        raise TimeoutError("mine")

    with pytest.raises(TimeoutError, match="mine"):
        patience(own_timeout)


HANGING = """
import time

class Hang:
    observes = ("proprio",)

    def reset(self, lanes, addresses):
        pass

    def act(self, observations, lanes):
        time.sleep(1000)
"""


def test_from_the_shell_a_hanging_agent_ends_the_command(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(HANGING)
    arguments = ["agent._target_=mine.Hang", "task=widowx_stack_cube", "episodes=1", "video=0", "agent_timeout=0.2"]
    done = subprocess.run(
        [sys.executable, "-m", "vlaser_gym.eval", *arguments, "run=run"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 2
    assert "Error: mine.Hang.act took more than 0.2 s" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists(), "no episode had ended"


# Checkpoints


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("nano") / "checkpoint"
    save_pretrained(VlaserPolicy.initialise(VlaserConfig.preset("nano")), folder)
    return folder


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def flipped(data: bytes) -> bytes:
    return data[:8] + bytes(255 - byte for byte in data[8:200]) + data[200:]


@pytest.mark.parametrize("damage", [cut, flipped, lambda data: b"", lambda data: b"\0" * len(data)])
@pytest.mark.parametrize("kind", ["weights", "config"])
def test_a_corrupted_checkpoint_is_one_sentence_and_leaves_nothing(
    tmp_path: Path, checkpoint: Path, kind: str, damage: Any
) -> None:
    folder = tmp_path / "damaged"
    shutil.copytree(checkpoint, folder)
    (file,) = folder.glob("*.safetensors") if kind == "weights" else folder.glob("config.json")
    file.write_bytes(damage(file.read_bytes()))
    arguments = ["agent=vlaser_nano", f"checkpoint={folder}", "task=widowx", f"run={tmp_path / 'run'}"]
    with pytest.raises(GymError) as caught:
        evaluate(EvalSettings.from_config(cli.load("eval", arguments)), make_env=make_fake_env)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert not (tmp_path / "run").exists()


# Files and disks


@pytest.mark.parametrize("seed", range(4))
def test_a_file_cut_mid_line(tmp_path: Path, whole: dict[str, bytes], seed: int) -> None:
    rng = np.random.default_rng(seed)
    score(tmp_path / "run")
    (tmp_path / "run" / "summary.json").unlink()
    records = tmp_path / "run" / "episodes.jsonl"
    size = int(rng.integers(1, len(whole["episodes.jsonl"])))
    records.write_bytes(records.read_bytes()[:size])
    begun: list[Any] = []
    score(tmp_path / "run", on_start=lambda *args: begun.append(args))
    assert begun == [(tmp_path / "run", whole["episodes.jsonl"][:size].count(b"\n"), 24)]
    assert files(tmp_path / "run") == whole


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A file system of 64 KiB."""
    folder = Path(tempfile.mkdtemp())
    mount = shutil.which("mount")
    options = ["-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if mount is None or subprocess.run([mount, *options], capture_output=True, check=False).returncode:
        folder.rmdir()
        pytest.skip("mounting takes the rights of root; the same fault is tested with a limited file size")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)
        folder.rmdir()


def test_a_full_disk(small_disk: Path, whole: dict[str, bytes]) -> None:
    with pytest.raises(StorageError, match="No space left on device") as caught:
        score(small_disk / "run")
    assert "\n" not in str(caught.value)
    assert 0 < is_part_of(small_disk / "run", whole) < 24
    subprocess.run(["mount", "-o", "remount,size=16m", str(small_disk)], check=True)
    score(small_disk / "run")
    assert files(small_disk / "run") == whole


LIMITED = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import test_evaluator
from pathlib import Path
from vlaser_gym.errors import StorageError
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, resource.RLIM_INFINITY))
try:
    test_evaluator.score(Path(sys.argv[2]))
except StorageError as error:
    sys.exit(str(error))
"""


def test_files_that_may_not_grow(tmp_path: Path, whole: dict[str, bytes]) -> None:
    run = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(HERE), str(run)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    cut_line = not (run / "episodes.jsonl").read_bytes().endswith(b"\n")
    assert cut_line, "the limit falls inside a line"
    assert 0 < len(read_records(run)) < 24
    score(run)
    assert files(run) == whole


# Simulators


def test_a_simulator_that_ends_the_process(tmp_path: Path, whole: dict[str, bytes]) -> None:
    """A crash in C: nothing is caught, and what had ended is there."""
    code = (
        "import sys, os, signal; sys.path.insert(0, sys.argv[1]); import fake_env, test_evaluator\n"
        "from pathlib import Path\n"
        "step, count = fake_env.FakeVectorEnv.step_chunk, iter(range(1000))\n"
        "def crash(*args):\n"
        "    if next(count) == 9: os.kill(os.getpid(), signal.SIGSEGV)\n"
        "    return step(*args)\n"
        "fake_env.FakeVectorEnv.step_chunk = crash\n"
        "test_evaluator.score(Path(sys.argv[2]), 'num_envs=4')\n"
    )
    run = tmp_path / "run"
    done = subprocess.run([sys.executable, "-c", code, str(HERE), str(run)], timeout=60, check=False)
    assert done.returncode == -signal.SIGSEGV
    assert is_part_of(run, whole) == 8
    score(run)
    assert files(run) == whole


def test_a_simulator_that_cannot_begin_an_episode_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every episode of a task fails at once: all of them count, as failures."""
    crash = [f"widowx_stack_cube/default/grid:{k}/{t}" for k in range(6) for t in range(2)]
    score(tmp_path / "run", f"engine.crash_on=[{','.join(crash)}]", "num_envs=5")
    records = read_records(tmp_path / "run")
    assert len(records) == 24
    assert sum(r["error"] is not None for r in records) == 12
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert [(row["n"], row["errors"]) for row in summary["tasks"]] == [(12, 0), (12, 12)]
    assert summary["tasks"][1]["success"]["rate"] == 0.0


# Settings

KEYS = sorted({*cli._flat(cli.load("eval", ["agent=random"])), "agent", "engine", "launcher"} - {"run"})
OWN = ["agent.horizon", "agent.noise", "agent.translation", "agent._target_", "engine.name"]
NAMES = ["widowx", "widowx_stack_cube", "google_robot", "expert", "random", "mujoco", "builtin", "default", "grid"]
TARGETS = ["fake_env.Reacher", "os.getcwd", "builtins.dict", "no.such", "vlaser_gym.agents.random.RandomAgent", "sys"]
words = st.sampled_from([*NAMES, *TARGETS, "region", "decided", "null", "true", "false", "nan", "inf", "50%", "''"])
odd = st.sampled_from(
    ["", "[", "{a:1}", "[1,2]", "${task}", "${x", "'", "a,b", "???", "${oc.env:HOME}", "~", "\\", "é"]
)
values = words | odd | st.integers(-3, 30).map(str) | st.floats().map(repr) | st.text(max_size=8) | st.just(str(10**12))
keys = st.sampled_from([*KEYS, *OWN]) | st.sampled_from(
    ["epsiodes", "+x", "~task", "agent", "a.b.c", "hydra.run.dir", ""]
)
good = st.sampled_from(
    [
        "task=widowx",
        "variant=default",
        "layouts=region",
        "episodes=3",
        "trials=2",
        "terminate_on_success=true",
        "num_envs=3",
        "look=builtin",
        "max_minutes=1",
        "agent_timeout=60",
        "level=0.1",
        "video=0",
        "report=false",
        "agent.noise=0.01",
        "agent.horizon=5",
        "engine=mujoco",
        "launcher=local",
        "baseline=0.3",
        "until=decided",
    ]
)
overrides = (
    good | st.builds("{}={}".format, keys, values) | st.text(max_size=12) | st.sampled_from(["--x", "=", "task"])
)
lists = st.lists(overrides, min_size=1, max_size=3)
CHEAP = ("fake_env.Reacher", "vlaser_gym.agents.random.RandomAgent")


def fuzz(folder: Path, given_overrides: Sequence[str]) -> None:
    """Any settings give a whole run of the planned length, or one sentence and nothing left behind."""
    run = folder / "run"
    arguments = ["agent._target_=fake_env.Reacher", "task=widowx_stack_cube", "episodes=2", *given_overrides]
    try:
        settings = EvalSettings.from_config(cli.load("eval", [*arguments, f"run={run}"]))
        plan = plan_episodes(settings.tasks, settings.variant, settings.layouts, settings.episodes, settings.trials)
        if settings.agent.get("_target_") not in CHEAP or len(plan) > 24:
            return
        evaluation = evaluate(settings, make_env=make_fake_env)
    except GymError as error:
        said = str(error)
    else:
        if evaluation.complete:
            summary = json.loads((run / "summary.json").read_text())
            assert sum(row["n"] for row in summary["tasks"]) == len(read_records(run))
            assert len(read_records(run)) == len(plan) or summary["sequential"]["verdict"]
        shutil.rmtree(run)
        return
    assert said
    assert "\n" not in said
    assert not list(folder.iterdir())


EVERYTHING = list(HealthCheck)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.filterwarnings("ignore::vlaser_gym.errors.GymWarning")  # a noise of 1 m is said to be none
@given(given_overrides=lists)
@example(given_overrides=["episodes=1000000000000"])
@example(given_overrides=["agent.noise=null"])
@example(given_overrides=["agent_timeout=1e300"])
@hypothesis_settings(max_examples=100, deadline=None, suppress_health_check=EVERYTHING)
def test_random_settings(place: Path, given_overrides: list[str]) -> None:
    fuzz(place, given_overrides)


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::vlaser_gym.errors.GymWarning")
@given(given_overrides=lists)
@hypothesis_settings(max_examples=10_000, deadline=None, suppress_health_check=EVERYTHING)
def test_ten_thousand_random_settings(place: Path, given_overrides: list[str]) -> None:
    fuzz(place, given_overrides)
