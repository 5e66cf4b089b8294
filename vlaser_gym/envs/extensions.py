"""Tasks and robots added from outside, on their way into other processes.

Render processes, simulators' processes and workers on other machines are interpreters of their own: what a user's file
has registered in this one is not known there. It is sent along: objects by value, classes and functions by the modules
that hold them (by value too where a notebook or a script defines them).
"""

from __future__ import annotations

import pickle
import sys
from typing import Any, NamedTuple

import cloudpickle  # type: ignore[import-untyped]

from vlaser_gym.envs.robots import RobotSetup, added_setups, register_setup
from vlaser_gym.envs.tasks import Task, add_task, added_tasks
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.registry import ENGINES


class Extensions(NamedTuple):
    """Tasks, robots and objects that users have registered."""

    setups: tuple[RobotSetup, ...] = ()
    tasks: tuple[Task, ...] = ()
    engines: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def here(cls) -> Extensions:
        """Extensions of this process."""
        return cls(added_setups(), added_tasks(), tuple(ENGINES.added.items()))

    def are(self, others: Extensions) -> bool:
        """True if these are the same objects as those of ``others``."""
        mine, theirs = self._named(), others._named()
        return len(mine) == len(theirs) and all(a == b and x is y for (a, x), (b, y) in zip(mine, theirs, strict=True))

    def _named(self) -> list[tuple[str, Any]]:
        robots, tasks = ([(entry.name, entry) for entry in of] for of in (self.setups, self.tasks))
        return [*robots, *tasks, *self.engines]

    def packed(self) -> bytes:
        """Serialise for :func:`unpack` in another process.

        Raises:
            InvalidConfigError: if one of them holds something that cannot be sent.
        """
        for name, extension in self._named():
            try:
                cloudpickle.dumps(extension)
            except Exception as error:  # fields refuse in many ways, with many types
                raise InvalidConfigError(
                    f"{type(extension).__name__} {name!r} must consist of what can be pickled, because other processes "
                    f"need it too; got {type(error).__name__}: {error}."
                ) from error
        return pickle.dumps((sys.path, cloudpickle.dumps(tuple(self))))


def unpack(data: bytes) -> None:
    """Add here what :meth:`Extensions.packed` holds."""
    folders, extensions = pickle.loads(data)
    # First: the modules of what is in there may come from a folder that only the sender knows.
    sys.path += [folder for folder in folders if folder not in sys.path]
    setups, tasks, engines = pickle.loads(extensions)
    for setup in setups:
        register_setup(setup)
    for task in tasks:
        add_task(task)
    ENGINES.added.update(engines)
