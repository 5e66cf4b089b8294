"""Stand-ins for the packages wandb and trackio: they keep what they are told, as rows of runs by project and name."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest


class StandIn(ModuleType):
    """Either package; a run that is begun under a known name goes on where ``resume`` says so.

    Attributes:
        runs: rows by project and name.
        begun: the arguments of every ``init``.
        ends: how each run that was finished ended, in order.
        broken: names of calls that fail.
    """

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.runs: dict[tuple[str, str], list[dict[str, Any]]] = {}
        self.begun: list[dict[str, Any]] = []
        self.ends: list[int | None] = []
        self.axes: list[tuple[str, str | None]] = []
        self.broken: set[str] = set()

    def init(self, *, project: str, resume: str | None = None, **given: Any) -> Run:
        self.fail("init")
        self.begun.append({"project": project, "resume": resume, **given})
        key = (project, given["id"] if self.__name__ == "wandb" else given["name"])
        assert (key in self.runs) == (resume == "allow"), "a known run goes on, and only that"
        self.run = Run(self, self.runs.setdefault(key, []))
        return self.run

    def finish(self) -> None:
        self.run.finish()

    def fail(self, call: str) -> None:
        if call in self.broken:
            raise ConnectionError(f"no network for {call}.\nTraceback and more")

    @property
    def rows(self) -> list[dict[str, Any]]:
        """Of the only run."""
        (rows,) = self.runs.values()
        return rows


class Run:
    def __init__(self, package: StandIn, rows: list[dict[str, Any]]) -> None:
        self.package, self.rows = package, rows

    def define_metric(self, name: str, step_metric: str | None = None) -> None:
        self.package.axes.append((name, step_metric))

    def log(self, data: dict[str, Any], step: int | None = None) -> None:
        self.package.fail("log")
        self.rows.append({**({} if step is None else {"step": step}), **data})

    def finish(self, exit_code: int | None = None) -> None:
        self.package.fail("finish")
        self.package.ends.append(exit_code)


def install(name: str, monkeypatch: pytest.MonkeyPatch) -> StandIn:
    package = StandIn(name)
    monkeypatch.setitem(sys.modules, name, package)
    return package
