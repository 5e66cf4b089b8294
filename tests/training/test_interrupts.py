from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import test_dpo
import test_ppo
import test_sft
import torch
from demonstrations import TINY, write_set
from interrupted import command, compare
from test_killed_writers import end_of, no_pictures, train  # noqa: F401  (a fixture)
from test_ppo import make

from vlaser_gym.storage.interrupts import Interrupts, StopNow, exit_status, terminable
from vlaser_gym.training.trainer import Trainer


def _signal_myself(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(1)


def test_the_first_signal_is_a_request_and_the_second_ends():
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with Interrupts(said.append) as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.received == signal.SIGINT
        assert "once more to leave at once" in said[0]
        with pytest.raises(KeyboardInterrupt):
            _signal_myself(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_where_nothing_is_lost_it_stops_at_once():
    with Interrupts() as interrupts:
        with pytest.raises(StopNow), interrupts.at_once():
            _signal_myself(signal.SIGTERM)
        assert interrupts.received == signal.SIGTERM
        with pytest.raises(StopNow), interrupts.at_once():
            pytest.fail("the request stands")


def test_training_stops_after_the_iteration_under_way_and_keeps_it(tmp_path):
    whole = make(tmp_path / "whole", iterations=3)
    assert whole.run()
    first = make(tmp_path / "parts", iterations=3, save_every=100)
    step = first.step

    def interrupted():
        os.kill(os.getpid(), signal.SIGINT)
        return step()

    first.step = interrupted
    assert not first.run()
    assert (first.done, first.stopped_by) == (1, signal.SIGINT)
    second = make(tmp_path / "parts", iterations=3)
    assert second.done == 1
    assert second.run()
    ends = [dict(trainer.agent.named_parameters()) for trainer in (whole, second)]
    assert all(value.equal(ends[1][name]) for name, value in ends[0].items())


def test_an_evaluation_is_left_at_once_and_made_up_for(tmp_path):
    def evaluate(policy):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        return {"success/mean": 1.0}

    first = make(tmp_path, iterations=1, evaluate=evaluate)
    begun = time.monotonic()
    first.run()
    assert time.monotonic() - begun < 4
    assert first.stopped_by == signal.SIGTERM
    scored = []
    make(tmp_path, iterations=1, evaluate=lambda policy: scored.append(1) or {"success/mean": 1.0}).run()
    assert scored == [1]


@pytest.mark.parametrize(
    ("algo", "signals", "total", "seconds"),
    [
        pytest.param("sft", 5, 600, 9, marks=pytest.mark.long),
        pytest.param("ppo", 4, 12, 14, marks=pytest.mark.long),
        pytest.param("dpo", 4, 2, 12, marks=pytest.mark.slow),
    ],
)
def test_interrupted_commands_end_with_the_same_parameters(tmp_path, algo, signals, total, seconds):
    more = ()
    if algo == "sft":
        tiny = (f"settings.{name}={value}" for name, value in TINY.items())
        more = (f"data={write_set(tmp_path / 'set', 4)}", *tiny)
    assert compare(algo, tmp_path, signals, total, seconds, *more)[-1] == 0


@pytest.mark.slow
def test_signals_have_their_exit_codes_and_a_second_writer_is_refused(tmp_path):
    data = write_set(tmp_path / "set", 4)
    tiny = [f"settings.{name}={value}" for name, value in TINY.items()]
    arguments = command("sft", tmp_path / "run", 100_000, f"data={data}", *tiny)
    metrics = tmp_path / "run" / "metrics.jsonl"
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        size = metrics.stat().st_size if metrics.exists() else 0
        process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        while not metrics.exists() or metrics.stat().st_size == size:
            assert process.poll() is None
            time.sleep(0.1)
        second = subprocess.run(arguments, capture_output=True, text=True, timeout=200, check=False)
        assert second.returncode == 2
        assert "Another process is writing to" in second.stderr
        process.send_signal(number)
        output = process.communicate(timeout=200)[0]
        assert process.returncode == code, output
        assert "the same command with run=" in output


# ---------------------------------------------------------------------- forked trainers, without imports in between

#: Where a trainer's state says how many steps, iterations or steps of rounds it has.
_POSITIONS = {"sft": "step", "ppo": "iteration", "dpo": "total"}


def longer(algo: str, tmp_path: Path) -> Callable[[Path], Trainer]:
    """A trainer with enough steps for signals to fall into."""
    if algo == "sft":
        data = test_sft.read(write_set(tmp_path / "data", 4))
        return lambda folder: test_sft.build(data, folder / "run", steps=30)
    if algo == "ppo":
        return lambda folder: test_ppo.make(folder / "run", save_every=100, iterations=6, n_steps=2, batch_size=8)
    test_dpo.make(tmp_path / "episodes")
    episodes, rare = [tmp_path / "episodes" / "data"], {"save_every": 100}
    return lambda folder: test_dpo.make(folder, data=episodes, rounds=0, epochs=20, options=rare.items())


def counted(make: Callable[[Path], Trainer], finished: Path) -> Callable[[Path], Trainer]:
    """The same; every step that is finished leaves a byte in a file."""

    def wrapped(folder: Path) -> Trainer:
        trainer = make(folder)
        step = trainer.step

        def step_and_tell() -> bool:
            went_on = step()
            with finished.open("ab") as file:
                file.write(b".")
            return went_on

        trainer.step = step_and_tell
        return trainer

    return wrapped


def signalled(work: Callable[[Path], Any], folder: Path, number: int, seconds: float) -> int:
    """Run ``work(folder)`` in a forked process that gets a signal after so long; its status, as of the commands."""
    child = os.fork()
    if not child:
        status = 1
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # Ray leaves a handler of its own in processes that used it
        try:
            with terminable():
                work(folder)
            status = 0
        except KeyboardInterrupt as interrupt:
            status = exit_status(interrupt)
        except AssertionError:  # the run was left before its end, and its state is stored
            status = 128 + number
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    time.sleep(seconds)
    os.kill(child, number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.slow
@pytest.mark.parametrize("algo", ["sft", "ppo", "dpo"])
def test_twenty_random_moments_lose_the_step_under_way_at_most(tmp_path, algo):
    """A run that ends before is compared with an undisturbed one, and another begins."""
    (tmp_path / "whole").mkdir()
    finished, luck, signals = tmp_path / "finished", random.Random(7), 0
    work = train(counted(longer(algo, tmp_path), finished))
    begun = time.monotonic()
    work(tmp_path / "whole")
    seconds, wanted = time.monotonic() - begun, last_of(tmp_path / "whole")
    steps, folder = len(finished.read_bytes()), tmp_path / "stopped"
    assert steps >= 6
    while signals < 20:
        folder.mkdir(exist_ok=True)
        finished.write_bytes(b"")
        number = luck.choice((signal.SIGINT, signal.SIGTERM))
        before = stored(folder, algo)
        status = signalled(work, folder, number, luck.uniform(0, 0.7 * seconds))
        # A signal may also come before there is a handler, or after the end.
        assert status in (0, 128 + number, -number), status
        signals += 1
        assert stored(folder, algo) >= before + len(finished.read_bytes())
        if stored(folder, algo) == steps or signals == 20:
            work(folder)
            found = last_of(folder)
            assert found == wanted, [name for name in wanted if found.get(name) != wanted[name]]
            assert not list(folder.rglob("*.tmp"))
            shutil.rmtree(folder)


def last_of(folder: Path) -> dict[str, Any]:
    """What a run ends with; policies of earlier steps are also those at which it was stopped."""
    last = ("trainer.pt", "metrics.jsonl", "settings.json", "checkpoint/")
    return {name: value for name, value in end_of(folder).items() if name.startswith(last) and "previous" not in name}


def stored(folder: Path, algo: str) -> int:
    """Steps that a run's state has."""
    file = folder / "run/trainer.pt"
    return int(torch.load(file, weights_only=True)[_POSITIONS[algo]]) if file.is_file() else 0
