"""Every example in a docstring of the environments, wrappers and conventions runs."""

from __future__ import annotations

import doctest
import importlib
from types import ModuleType

import pytest

MODULES = (
    "vlaser_gym.agents.ablated",
    "vlaser_gym.conventions.robots",
    "vlaser_gym.conventions.units",
    "vlaser_gym.envs.address",
    "vlaser_gym.envs.lane",
    "vlaser_gym.envs.registration",
    "vlaser_gym.envs.single",
    "vlaser_gym.envs.tasks",
    "vlaser_gym.envs.transforms",
    "vlaser_gym.envs.vector",
    "vlaser_gym.wrappers.action",
    "vlaser_gym.wrappers.base",
    "vlaser_gym.wrappers.observation",
    "vlaser_gym.wrappers.record",
    "vlaser_gym.wrappers.reward",
    "vlaser_gym.wrappers.sb3",
)
#: Public wrappers, each of which has an example.
WRAPPERS = {
    "action": ("ChunkActions", "ScaleActions"),
    "observation": ("SelectObservation", "ResizeImage", "TokenizeInstruction"),
    "record": ("RecordStates",),
    "reward": ("SubgoalReward",),
    "sb3": ("StableBaselines3VecEnv", "StableBaselines3Env"),
}


def examples(module: ModuleType) -> list[doctest.DocTest]:
    return [test for test in doctest.DocTestFinder().find(module) if test.examples]


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name: str) -> None:
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
    report: list[str] = []
    for test in examples(importlib.import_module(name)):
        runner.run(test, out=report.append)
    assert runner.failures == 0, "".join(report)


@pytest.mark.parametrize(("module", "names"), WRAPPERS.items())
def test_every_wrapper_has_an_example(module: str, names: tuple[str, ...]) -> None:
    path = f"vlaser_gym.wrappers.{module}"
    documented = {test.name for test in examples(importlib.import_module(path))}
    assert {f"{path}.{name}" for name in names} <= documented
