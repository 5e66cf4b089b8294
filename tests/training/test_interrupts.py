from __future__ import annotations

import os
import signal
import subprocess
import time

import pytest
from demonstrations import TINY, write_set
from interrupted import command, compare
from test_ppo import make, no_pictures  # noqa: F401  (a fixture)

from vlaser_gym.storage.interrupts import Interrupts, StopNow


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


@pytest.mark.slow
@pytest.mark.parametrize(
    ("algo", "signals", "total", "seconds"), [("sft", 5, 600, 9), ("ppo", 4, 12, 14), ("dpo", 4, 2, 12)]
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
