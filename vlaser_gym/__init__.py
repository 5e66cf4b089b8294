"""vlaser-gym: vision-language-action robot policies, scored and improved in simulation.

>>> import vlaser_gym
>>> result = vlaser_gym.evaluate("random", task="widowx_stack_cube", episodes=2)  # doctest: +SKIP
>>> vlaser_gym.train(algo="ppo", init="nano", task="widowx_stack_cube")  # doctest: +SKIP

What needs a simulator or torch is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from vlaser_gym.storage.interrupts import leave_until_begun

leave_until_begun()  # before anything else is imported

from vlaser_gym.envs.registration import register_environments, register_task  # noqa: E402
from vlaser_gym.registry import register_density, register_engine, register_reward  # noqa: E402

if TYPE_CHECKING:
    from vlaser_gym.face import collect, compare, evaluate, train
    from vlaser_gym.training.algorithms import register_algorithm

__version__ = "0.1.0"
__all__ = [
    "collect",
    "compare",
    "evaluate",
    "register_algorithm",
    "register_density",
    "register_engine",
    "register_environments",
    "register_reward",
    "register_task",
    "train",
]

#: Where the functions are that are imported when they are first asked for.
_LATER = {
    **dict.fromkeys(("collect", "compare", "evaluate", "train"), "vlaser_gym.face"),
    "register_algorithm": "vlaser_gym.training.algorithms",
}

register_environments()


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_LATER[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
