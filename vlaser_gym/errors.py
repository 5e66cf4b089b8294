"""Errors meant for the person at the keyboard: one sentence: what was expected, what was got, what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any


class GymError(Exception):
    """Base of every error that bad input or a missing part of the machine can cause.

    Commands print its text as one sentence and exit with status 2; nothing else of it is shown, but for
    :class:`AgentError`. Errors travel between processes whatever their constructors take.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self.args, dict(self.__dict__))


def _rebuilt(kind: type[GymError], arguments: tuple[Any, ...], attributes: dict[str, Any]) -> GymError:
    """An error as it was, past the constructor that once made its sentence."""
    error = kind.__new__(kind, *arguments)
    error.__dict__.update(attributes)
    return error


class GymWarning(UserWarning):
    """Something that does not stop a command and yet should be looked at; commands print it as one sentence."""


class UnknownNameError(GymError):
    """A name that is not in a list of valid names; the text offers the nearest ones.

    Args:
        kind: what it should be the name of.
        name: what was given.
        valid: the names that there are.
        likely: those of them that are meant more likely than the nearest by their letters.
    """

    def __init__(self, kind: str, name: object, valid: Iterable[str], likely: Sequence[str] = ()) -> None:
        names = sorted(valid)
        alike = get_close_matches(str(name), names, n=3, cutoff=0.3) or names[:5]
        near = [*likely, *(other for other in alike if other not in likely)][: max(3, len(alike))]
        super().__init__(f"Unknown {kind} {name!r}: expected one of {len(names)} names; nearest: {', '.join(near)}.")


class InvalidActionError(GymError):
    """An action of the wrong shape or with values that are not finite."""


class InvalidConfigError(GymError):
    """A setting outside its range, or settings that contradict each other."""


class ClosedError(GymError):
    """An environment that is used after it was closed."""


class RenderingUnavailableError(GymError):
    """No OpenGL driver can make images here; everything that needs none still works."""


class MissingAssetError(GymError):
    """A file that the chosen look or engine needs is absent or damaged."""


class SimulationError(GymError):
    """The simulator could not go on (diverged state, crashed worker).

    Attributes:
        lanes: where it could not; None where that is not known.
    """

    lanes: tuple[int, ...] | None = None


class StorageError(GymError):
    """A run directory that cannot be written, read or continued."""


class DivergedError(GymError):
    """Training whose loss or gradient is not finite any more."""


class AgentTimeoutError(GymError):
    """An agent that took longer to decide than it was allowed."""


class AgentError(GymError):
    """An agent's own code raised an exception.

    Attributes:
        trace: the exception's traceback, which commands print above the sentence; text, so that it survives the way
            between processes.
    """

    def __init__(self, sentence: str, trace: str = "") -> None:
        super().__init__(sentence)
        self.trace = trace


class RemoteError(GymError):
    """A policy server or client that cannot be reached, stopped answering, or said what the protocol does not allow."""
