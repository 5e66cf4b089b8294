"""Errors travel between processes, whatever their constructors take."""

from __future__ import annotations

import importlib
import multiprocessing
import pickle
import pkgutil
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor

import pytest

import vlaser_gym
from vlaser_gym import errors
from vlaser_gym.errors import AgentError, GymError, GymWarning, SimulationError, UnknownNameError


def kinds(base: type = GymError) -> Iterator[type]:
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def all_kinds() -> list[type]:
    """Of errors.py and of every module of the package that can be imported here."""
    needs_more = "vlaser_gym.envs.engines", "vlaser_gym.commands"
    for module in pkgutil.walk_packages(vlaser_gym.__path__, "vlaser_gym."):
        if not module.name.startswith(needs_more):
            importlib.import_module(module.name)
    return [kind for kind in dict.fromkeys(kinds()) if kind.__module__.startswith("vlaser_gym.")]


def made(kind: type) -> Exception:
    if kind is UnknownNameError:
        return UnknownNameError("task", "x", ["y", "z"], ["z"])
    error: Exception = kind("a sentence", "a trace") if issubclass(kind, AgentError) else kind("a sentence")
    error.remark = [1, 2]  # type: ignore[attr-defined]  # what a raiser has added
    return error


def test_every_error_is_the_same_after_pickling() -> None:
    found = all_kinds()
    assert len(found) > 10
    assert {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, GymError)} <= {*found}
    for kind in found:
        error = made(kind)
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.args, vars(back)) == (kind, str(error), error.args, vars(error)), kind


def test_an_error_with_further_arguments_of_a_user_s_own() -> None:
    error = TwoArgumentsError("a", b="b")
    back = pickle.loads(pickle.dumps(error))
    assert (str(back), back.b) == ("a and b", "b")


class TwoArgumentsError(SimulationError):
    def __init__(self, a: str, *, b: str) -> None:
        super().__init__(f"{a} and {b}")
        self.b = b


def fail() -> None:
    raise UnknownNameError("task", "widowx_stak", ["widowx_stack", "other"])


@pytest.mark.slow
def test_the_sentence_of_a_child_process_arrives() -> None:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, mp_context=context) as pool, pytest.raises(UnknownNameError) as caught:
        pool.submit(fail).result(60)
    assert str(caught.value) == "Unknown task 'widowx_stak': expected one of 2 names; nearest: widowx_stack."


def test_warnings_travel() -> None:
    assert str(pickle.loads(pickle.dumps(GymWarning("look")))) == "look"
