from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from vlaser_gym.storage.interrupts import Terminated, exit_status, terminable, uninterrupted


def write(done: list[str], number: int) -> None:
    """A write in whose middle a signal comes."""
    with uninterrupted(), uninterrupted():
        os.kill(os.getpid(), number)
        time.sleep(0.05)
        done.append("whole")
    done.append("afterwards")


def test_signals_wait_for_the_end_of_a_write() -> None:
    done: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        write(done, signal.SIGINT)
    assert done == ["whole"]


def test_a_termination_waits_too_and_is_an_interrupt_of_its_own_status() -> None:
    done: list[str] = []
    with pytest.raises(Terminated) as caught, terminable():
        write(done, signal.SIGTERM)
    assert done == ["whole"]
    assert (exit_status(caught.value), exit_status(KeyboardInterrupt())) == (143, 130)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_other_threads_write_without_handlers() -> None:
    errors: list[BaseException] = []

    def write() -> None:
        try:
            with terminable(), uninterrupted():
                pass
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=write)
    thread.start()
    thread.join()
    assert not errors
