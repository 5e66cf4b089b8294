"""Semantics: the same goal in other words; and, as controls, no words and those of another goal."""

from __future__ import annotations

import re

from vlaser_gym.envs.perturbations.base import Moment, Perturbation
from vlaser_gym.envs.tasks import by_robot, get_task, task_names
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.errors import InvalidConfigError

_THE = r"(?:the )?"
#: Patterns of all instructions, and for each level what may be said instead; names stand for the groups.
_PARAPHRASES: tuple[tuple[str, dict[str, tuple[str, ...]]], ...] = (
    (
        rf"put {_THE}(?P<a>.+) (?:on|into) {_THE}(?P<b>.+)",
        {
            "mild": ("place the {a} {in} the {b}", "set the {a} down {in} the {b}"),
            "medium": ("move the {a} so that it ends up {in} the {b}", "the {a} goes {in} the {b}"),
            "hard": ("{in} the {b} is where the {a} belongs", "what the {b} still lacks is the {a}"),
        },
    ),
    (
        rf"stack {_THE}(?P<a>.+) on {_THE}(?P<b>.+)",
        {
            "mild": ("place the {a} on the {b}", "put the {a} on top of the {b}"),
            "medium": ("build a tower with the {a} above the {b}", "the {a} goes on top of the {b}"),
            "hard": ("make the {b} carry the {a}", "on top of the {b} is where the {a} belongs"),
        },
    ),
    (
        rf"pick {_THE}(?P<a>.+)",
        {
            "mild": ("pick up the {a}", "grab the {a}"),
            "medium": ("lift the {a} off the table", "take the {a} and hold it up"),
            "hard": ("the {a} should not be on the table any more", "get hold of the {a} and raise it"),
        },
    ),
    (
        rf"move {_THE}(?P<a>.+) near {_THE}(?P<b>.+)",
        {
            "mild": ("move the {a} close to the {b}", "put the {a} near the {b}"),
            "medium": ("bring the {a} over to the {b}", "the {a} goes next to the {b}"),
            "hard": ("give the {b} the {a} as a neighbour", "beside the {b} is where the {a} belongs"),
        },
    ),
    (
        rf"(?P<v>open|close) {_THE}(?P<a>top|middle|bottom) drawer",
        {
            "mild": ("{v} the {a} drawer", "please {v} the {a} drawer"),
            "medium": ("get the {a} drawer {ed}", "the {a} drawer should be {ed}"),
            "hard": (
                "{ed} is how I want the {a} drawer of the cabinet",
                "I want to find the {a} drawer {ed} when I am back",
            ),
        },
    ),
    (
        rf"place {_THE}(?P<a>.+) into {_THE}(?P<b>top|middle|bottom) drawer",
        {
            "mild": ("put the {a} into the {b} drawer", "place the {a} in the {b} drawer"),
            "medium": ("the {a} goes into the {b} drawer", "stow the {a} away in the {b} drawer"),
            "hard": ("inside the {b} drawer is where the {a} belongs", "let the {b} drawer hold the {a}"),
        },
    ),
)
_POLITE = ("hello robot, ", "okay, next one: ", "if you do not mind, ")
_CHATTER = (
    "it has been a long day in the lab and the light is already going",
    "there is no hurry and nobody is watching",
    "I will clean up the rest of the table myself later",
    "the last run was fine and this one will be too",
    "mind that the camera is on",
    "we have done this many times before",
)


class Paraphrase(Perturbation):
    """The same request in other words; from mild to hard its words are rarer and its goal less direct."""

    name, family = "paraphrase", "semantics"
    sentence = "the instruction in other words, one of two sentences by chance (docs/robustness.md lists them)"
    reads_words = True
    strengths = (1.0, 2.0, 3.0)

    def applies(self, task: Task) -> bool:
        """Applicable to tasks that are known by name: the next one says something else."""
        return bool(paraphrases(task.instruction("grid:0"), self.level))

    def instruction(self, text: str, moment: Moment) -> str:
        """Another sentence, the same for the whole episode; a text of no known form stays."""
        choices = paraphrases(text, self.level)
        return text if not choices else choices[moment.of_episode().integers(len(choices))]


def paraphrases(text: str, level: str) -> tuple[str, ...]:
    """The paraphrases of an instruction; empty for an instruction of unknown form.

    Example:
        >>> paraphrases("put carrot on plate", "mild")
        ('place the carrot on the plate', 'set the carrot down on the plate')
    """
    for pattern, sentences in _PARAPHRASES:
        if (found := re.fullmatch(pattern, text)) is not None:
            words = found.groupdict()
            joined = "into" if " into " in text else "on"
            more = {"in": joined, "ed": "closed" if words.get("v") == "close" else "open"}
            return tuple(sentence.format(**words, **more) for sentence in sentences[level])
    return ()


class LongInstruction(Perturbation):
    """The request in the middle of other talk."""

    name, family = "long_instruction", "semantics"
    sentence = "a polite opening, and {strength} sentence(s) about something else after the instruction"
    strengths = (0.0, 1.0, 3.0)

    def instruction(self, text: str, moment: Moment) -> str:
        """The instruction itself stays word for word."""
        rng = moment.of_episode()
        opening = _POLITE[rng.integers(len(_POLITE))]
        talk = [_CHATTER[i] for i in rng.permutation(len(_CHATTER))[: int(self.strength)]]
        return ". ".join([f"{opening}{text}", *talk])


class Typos(Perturbation):
    """A request that was typed in haste."""

    name, family = "typos", "semantics"
    sentence = "a typing error in {strength} of the words with three letters or more, at least in one"
    strengths = (0.2, 0.5, 1.0)

    def instruction(self, text: str, moment: Moment) -> str:
        """Neighbouring letters swapped, one left out, or one doubled."""
        rng = moment.of_episode()
        words = text.split(" ")
        long = [i for i, word in enumerate(words) if len(word) > 2]
        count = max(1, round(self.strength * len(long)))
        for i in rng.permutation(long)[:count]:
            word, kind = words[i], rng.integers(3)
            at = int(rng.integers(len(word) - 1))
            swapped = word[:at] + word[at + 1] + word[at] + word[at + 2 :]
            shorter, longer = word[:at] + word[at + 1 :], word[: at + 1] + word[at:]
            # Two letters that are the same cannot be seen to change places.
            words[i] = swapped if kind == 0 and swapped != word else shorter if kind == 1 else longer
        return " ".join(words)


class NoInstruction(Perturbation):
    """The control of semantics: what is scored without being told anything."""

    name, family = "no_instruction", "control"
    sentence = "no words at all"
    strengths = (1.0,)

    def instruction(self, text: str, moment: Moment) -> str:
        """The empty instruction."""
        return ""


class WrongInstruction(Perturbation):
    """The control of semantics: whoever listens fails."""

    name, family = "wrong_instruction", "control"
    sentence = "the instruction of another task of the same robot"
    strengths = (1.0,)

    def applies(self, task: Task) -> bool:
        """To tasks that are known by name: the next one says something else."""
        return task.name in task_names()

    def instruction(self, text: str, moment: Moment) -> str:
        """See :func:`other_instruction`."""
        return other_instruction(text, moment.address.task)


def other_instruction(told: str, task: str) -> str:
    """The first layout's instruction of the robot's next task with another instruction, in cyclic order.

    Args:
        told: the true instruction.
        task: name of the episode's task.

    Raises:
        InvalidConfigError: if the robot has no other instruction.

    Example:
        >>> other_instruction("put carrot on plate", "widowx_carrot_on_plate")
        'put the spoon on the towel'
        >>> other_instruction("open top drawer", "google_robot_open_top_drawer")
        'open middle drawer'
    """
    (alike,) = (of for of in by_robot(map(get_task, task_names())).values() if get_task(task) in of)
    start = alike.index(get_task(task)) + 1
    sentences = (other.instruction("grid:0") for other in (*alike[start:], *alike[:start]))
    sentence = next((text for text in sentences if text != told), None)
    if sentence is None:
        raise InvalidConfigError(
            f"The robot of {task} is told one sentence only: there is no other instruction for it."
        )
    return sentence
