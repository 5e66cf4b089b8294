"""Names that can be extended from outside, and objects by import string."""

from __future__ import annotations

import importlib
from collections.abc import Collection, Iterator
from typing import Any

from vlaser_gym.errors import InvalidConfigError, UnknownNameError


def import_string(text: str, key: str) -> Any:
    """The object that ``module:name`` stands for; ``key`` is the setting that an error is about.

    Raises:
        InvalidConfigError: if it cannot be imported.

    Example:
        >>> import_string("math:sqrt", "function")(9.0)
        3.0
    """
    module, colon, name = text.partition(":")
    try:
        if not colon:
            raise ValueError("there is no colon in it")
        found: Any = importlib.import_module(module)
        for part in name.split("."):
            found = getattr(found, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidConfigError(
            f"{key} must be importable, as module:name; got {text!r} ({error}); modules of the current folder and of "
            "installed packages are found."
        ) from error
    return found


def import_extra(module: str, purpose: str, extra: str) -> Any:
    """A package that comes with one of this project's extras only.

    Args:
        module: its name.
        purpose: a clause for the error that says what needs it.
        extra: which one.

    Raises:
        InvalidConfigError: if it cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise InvalidConfigError(f"{purpose}: pip install 'vlaser-gym[{extra}]'.") from error


class Registry(Collection[str]):
    """The names that a setting accepts: the package's own, registered ones, and import strings.

    Args:
        key: the setting.
        own: names of the package's own.
        others: a registry whose additions count here too.

    Attributes:
        added: objects from outside, by name.
    """

    def __init__(self, key: str, own: tuple[str, ...], others: Registry | None = None) -> None:
        self.key, self.own = key, own
        self.added: dict[str, Any] = {} if others is None else others.added

    def __iter__(self) -> Iterator[str]:
        """The names."""
        return iter((*self.own, *self.added))

    def __len__(self) -> int:
        """The number of names."""
        return len(self.own) + len(self.added)

    def __contains__(self, name: object) -> bool:
        """True for a name or a text in the form of an import string."""
        return name in tuple(self) or (isinstance(name, str) and ":" in name)

    def is_added(self, name: str) -> bool:
        """True if the name stands for an object from outside."""
        return name not in self.own and name in self

    def add(self, name: str, thing: Any) -> None:
        """Make an object known by a name; of one name, the one that was added last counts.

        Raises:
            InvalidConfigError: for a name of the package's own, or one that no command line could hold.
        """
        if name in self.own or not name.replace("-", "_").isidentifier():
            raise InvalidConfigError(
                f"A name for {self.key}= consists of letters, digits, underscores and hyphens, and is not one of the "
                f"package's own ({', '.join(self.own)}); got {name!r}."
            )
        self.added[name] = thing

    def find(self, name: str) -> Any:
        """The object from outside that a name or an import string stands for.

        Raises:
            UnknownNameError: for a name of nothing.
            InvalidConfigError: for an import string that does not import.
        """
        if name in self.added:
            return self.added[name]
        if ":" not in name:
            raise UnknownNameError(self.key, name, self)
        return import_string(name, self.key)


ENGINES = Registry("engine", ("mujoco", "maniskill", "simpler"))
DENSITIES = Registry("algo.density", ("flow_sde", "flow_sde_one_step", "flow_noise", "flow_cps", "chunk_gaussian"))
REWARDS = Registry("algo.reward", ("sparse", "subgoals", "last"))
#: Of the algorithms that are Stable-Baselines3's.
STOCK_REWARDS = Registry("algo.reward", ("sparse", "subgoals", "reach"), REWARDS)


def register_engine(name: str, engine: Any) -> None:
    """Make an engine of one's own known, for ``engine=NAME``; ``engine=module:Class`` needs no registering.

    Args:
        name: for the command line and for Python.
        engine: a class with the methods of :class:`~vlaser_gym.envs.engines.DrivenEngine` or
            :class:`~vlaser_gym.envs.engines.ActingEngine`, or a function that gives one. It is called with the number
            of environments, ``look=`` and what ``engine.KEY=VALUE`` sets. Its attribute ``looks`` names the looks that
            it can have, the one first that is meant where none is named; without it there is one, ``builtin``.

    Raises:
        InvalidConfigError: for a name of the package's own.
    """
    ENGINES.add(name, engine)


def register_density(name: str, density: Any) -> None:
    """Make a density of one's own known, for ``algo.density=NAME``; ``algo.density=module:Class`` needs no registering.

    Args:
        name: for the command line and for Python.
        density: a subclass of :class:`~vlaser_gym.agents.vlaser.densities.Density`, or a function that gives one. It is
            called with ``num_steps`` and, of ``width``, ``action_dim``, ``horizon``, ``noise_level``, ``noise_bounds``
            and ``seed``, with those that it names.

    Raises:
        InvalidConfigError: for a name of the package's own.
    """
    DENSITIES.add(name, density)


def register_reward(name: str, reward: Any) -> None:
    """Make a reward of one's own known, for ``algo.reward=NAME``; ``algo.reward=module:Class`` needs no registering.

    Args:
        name: for the command line and for Python.
        reward: a subclass of :class:`~vlaser_gym.wrappers.SceneWrapper`, or a function that wraps an environment. It is
            called with the environment and, of ``gamma`` (the discount per control step) and ``weights``
            (``algo.subgoal_weights``), with those that it names. Its attributes
            ``observes`` (what it reads of the observations besides what the policy does) and ``ends_at_success``
            (False: episodes run to their limit) are looked at if it has them.

    Raises:
        InvalidConfigError: for a name of the package's own.
    """
    REWARDS.add(name, reward)
