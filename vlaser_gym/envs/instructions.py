"""Instructions of one's own, told in place of the tasks' sentences."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError

#: Endings of files with sentences: one per line, or YAML.
FILE_ENDINGS = (".txt", ".yaml", ".yml")
_EVERY_TASK = ""
_EXPECTED = (
    "instruction= is a sentence, a list of sentences, a .txt file with one per line, or a .yaml file with a list, or "
    "with one for each task"
)


@dataclass(frozen=True)
class Instructions:
    """Sentences by task.

    Attributes:
        sentences: name of a task -> its sentences; the name ``""`` stands for every task.
    """

    sentences: Mapping[str, tuple[str, ...]]

    @classmethod
    def read(cls, given: Any) -> Instructions:
        """Parse what ``instruction=`` takes; see :func:`stored_instructions`."""
        found = stored_instructions(given)
        by_task = found if isinstance(found, Mapping) else {_EVERY_TASK: found}
        return cls({task: tuple(sentences) for task, sentences in by_task.items()})

    def check(self, tasks: Iterable[str]) -> None:
        """Refuse one sentence for several tasks, and sentences for tasks that are not run.

        Raises:
            InvalidConfigError: for these.
        """
        names = list(dict.fromkeys(tasks))
        if _EVERY_TASK in self.sentences and len(names) > 1:
            raise InvalidConfigError(
                f"One instruction does not fit {len(names)} tasks ({', '.join(names)}): give instruction= a .yaml file "
                "with lines TASK: SENTENCE, or run one task."
            )
        strangers = [task for task in self.sentences if task and task not in names]
        if strangers:
            raise InvalidConfigError(
                f"instruction= names the task {strangers[0]!r}, which is not run; the tasks are {', '.join(names)}."
            )

    def told(self, address: Address) -> str | None:
        """The sentence of an episode; ``None`` where its task keeps its own."""
        sentences = self.sentences.get(address.task, self.sentences.get(_EVERY_TASK))
        return None if sentences is None else drawn(sentences, address)


@lru_cache(maxsize=4096)
def drawn(sentences: tuple[str, ...], address: Address) -> str:
    """One of several sentences, by chance of the episode's address: the same in every run that has these sentences.

    Example:
        >>> drawn(("lift it",), Address("widowx_stack_cube"))
        'lift it'
    """
    return sentences[address.rng("instruction").integers(len(sentences))] if len(sentences) > 1 else sentences[0]


def stored_instructions(given: Any) -> list[str] | dict[str, list[str]]:
    """The sentences that ``instruction=`` means, as a run keeps them: their own words instead of a file's name.

    Args:
        given: a sentence, several, a mapping from tasks to such, or the name of a file with them.

    Raises:
        InvalidConfigError: for a file that cannot be read, and for anything that is no sentence.
    """
    if isinstance(given, str | Path) and str(given).endswith(FILE_ENDINGS):
        given = _read(Path(given))
    if isinstance(given, Mapping) and given:
        return {str(task): _sentences(of) for task, of in given.items()}
    return _sentences(given)


def _read(file: Path) -> Any:
    from omegaconf.errors import OmegaConfBaseException  # noqa: PLC0415  who only imports the package reads no file
    from yaml import YAMLError  # noqa: PLC0415

    from vlaser_gym.settings.reading import read_yaml  # noqa: PLC0415

    try:
        text = file.read_text(encoding="utf-8")
        return text.splitlines() if file.suffix == ".txt" else read_yaml(text)
    except (OSError, ValueError, YAMLError, OmegaConfBaseException) as error:
        raise InvalidConfigError(f"{_EXPECTED}; {file} cannot be read ({str(error).splitlines()[0]}).") from error


def _sentences(given: Any) -> list[str]:
    listed: Sequence[Any] = [given] if isinstance(given, str) else list(given) if isinstance(given, Sequence) else []
    sentences = [text.strip() for text in listed if isinstance(text, str) and text.strip()]
    if not sentences or any(not isinstance(text, str) for text in listed):
        raise InvalidConfigError(f"{_EXPECTED}; got {given!r}.")
    return sentences
