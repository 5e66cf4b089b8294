"""A run of answers: ask a model a folder's questions, store every answer, score them.

A run directory holds ``reasoning.json`` (what was asked of whom), ``answers.jsonl`` (a line per answer, flushed as it
comes), and in the end ``summary.json`` and ``wrong.html``. A run that was interrupted goes on where it stopped.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlaser_gym import __version__
from vlaser_gym.agents.vlaser.chat import Request
from vlaser_gym.cli import words
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, StorageError
from vlaser_gym.evaluation.store import setting_differences
from vlaser_gym.reasoning.constants import ConstantAnswers
from vlaser_gym.reasoning.folder import (
    Question,
    missing_pictures,
    picture_lines,
    read_picture,
    read_questions,
    read_settings,
    splits_of,
)
from vlaser_gym.reasoning.models import Answerer
from vlaser_gym.reasoning.page import wrong_page
from vlaser_gym.reasoning.scores import Row, Scored, row_of, score, summarise
from vlaser_gym.settings.commands import ReasonSettings
from vlaser_gym.storage.files import is_temporary, write_whole
from vlaser_gym.storage.lines import append_line, drop_cut_line, parse_object, read_lines
from vlaser_gym.storage.locks import LOCK_NAME, held

CONFIG_FILE, ANSWERS_FILE, SUMMARY_FILE, PAGE_FILE = "reasoning.json", "answers.jsonl", "summary.json", "wrong.html"
SCHEMA = 1
#: Settings that change how a run is made, not what it finds.
_FREE = ("run", "batch", "timeout", "pictures", "device", "convert", "output", "thoughts")

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class AnswerRun:
    """A run that is complete.

    Attributes:
        rows: by table (``kind``, ``family``, ``split``, ``object``) and name.
        overall: unweighted over questions.
    """

    path: Path
    rows: Mapping[str, Mapping[str, Row]]
    overall: Row


def chosen_questions(settings: ReasonSettings) -> list[Question]:
    """The questions that are asked, in their order.

    Raises:
        StorageError: if the data are no folder of questions.
        MissingAssetError: if images are missing.
        UnknownNameError: for a split that there is not.
        InvalidConfigError: if nothing is left to ask.
    """
    folder = Path(settings.data)
    read_settings(folder)
    names = [split for split in splits_of(folder) if split != "train"] if words(settings.split) == ["all"] else None
    kinds = set() if settings.kinds is None else set(words(settings.kinds))
    questions = []
    for split in names or words(settings.split):
        found = [q for q in read_questions(folder, [split]) if not kinds or {q.kind, q.family} & kinds]
        if settings.limit is not None and settings.limit < len(found):
            order = np.random.default_rng(0).permutation(len(found))[: settings.limit]
            found = [found[i] for i in sorted(order)]
        questions += found
    if not questions:
        raise InvalidConfigError(f"{folder} has no question of split={settings.split} kinds={settings.kinds}.")
    if missing := missing_pictures(folder, questions):
        raise MissingAssetError(
            f"{len(missing)} images of these questions are missing in {folder}, the first is {missing[0]}: copy the "
            "folder again, or repeat the command that made it."
        )
    return questions


def ask_all(settings: ReasonSettings, model: Answerer, progress: Progress = lambda done, total: None) -> AnswerRun:
    """Ask what the run has no answer of yet, and score all answers.

    Raises:
        GymError: for whatever is wrong; answers that are stored stay.
    """
    questions = chosen_questions(settings)
    path = Path(settings.run or f"runs/reason-{datetime.now():%Y%m%d-%H%M%S}")
    with held(path, "another run="):
        _claim(path, settings, model)
        _ask(path, settings, questions, model, progress)
        scored = score_run(path, settings, questions)
        run = AnswerRun(path, tables_of(scored), row_of(scored))
        _finish(path, settings, run, scored)
    return run


def _claim(path: Path, settings: ReasonSettings, model: Answerer) -> None:
    config = {"schema": SCHEMA, "vlaser_gym": __version__, "answerer": model.name}
    config |= {key: value for key, value in asdict(settings).items() if key not in _FREE}
    file = path / CONFIG_FILE
    if file.exists():
        stored = read_run_config(path)
        if differences := setting_differences(stored, config):
            raise StorageError(
                f"{path} holds answers of another run ({'; '.join(differences)}): choose another run= or repeat its "
                "settings."
            )
    elif any(entry.name != LOCK_NAME and not is_temporary(entry) for entry in path.iterdir()):
        raise StorageError(f"{path} holds something else than answers: choose another run=.")
    write_whole(file, (json.dumps(config, indent=2, ensure_ascii=False) + "\n").encode())


def is_answer_run(path: str | Path) -> bool:
    """True if a folder is a run of answers."""
    return (Path(path) / CONFIG_FILE).is_file()


def read_run_config(path: str | Path) -> dict[str, Any]:
    """The settings of a run of answers: questions and model.

    Raises:
        StorageError: if the folder is no run of answers.
    """
    file = Path(path) / CONFIG_FILE
    found = parse_object(file.read_bytes()) if file.is_file() else None
    if found is None or found.get("schema") != SCHEMA:
        raise StorageError(f"{path} should be a run of answers with a {CONFIG_FILE} of schema {SCHEMA}; it is not.")
    return found


def _check_answer(line: dict[str, Any]) -> None:
    if {"id", "blind", "answer", "cut"} - line.keys():
        raise ValueError("expected id, blind, answer and cut")


def read_answers(path: str | Path) -> dict[tuple[str, bool], dict[str, Any]]:
    """The stored answers, by question and whether it was asked without its image."""
    lines = read_lines(Path(path) / ANSWERS_FILE, _check_answer)
    return {(line["id"], line["blind"]): line for line in lines}


def _ask(
    path: Path, settings: ReasonSettings, questions: Sequence[Question], model: Answerer, progress: Progress
) -> None:
    drop_cut_line(path / ANSWERS_FILE)
    known = read_answers(path)
    wanted = [(q, blind) for blind in ((False, True) if settings.blind else (False,)) for q in questions]
    left = [(question, blind) for question, blind in wanted if (question.id, blind) not in known]
    # Answers of one form are about as long, and a batch waits for its longest. Questions about an image follow each
    # other: images are most of the work of a short answer, and one that a batch shares is read and looked at once.
    left.sort(key=lambda pair: (pair[1], pair[0].form, pair[0].images))
    done = len(wanted) - len(left)
    with (path / ANSWERS_FILE).open("ab", buffering=0) as lines:
        for batch in _batches(left, settings.batch):
            read = cache(read_picture)
            requests = [request_of(Path(settings.data), question, blind, read) for question, blind in batch]
            for (question, blind), reply in zip(batch, model.replies(requests), strict=True):
                line = {"id": question.id, "blind": blind, "answer": reply.text, "cut": reply.cut}
                append_line(lines, line)
            done += len(batch)
            progress(done, len(wanted))


def _batches(left: Sequence[tuple[Question, bool]], size: int) -> Iterator[Sequence[tuple[Question, bool]]]:
    for begin in range(0, len(left), size):
        yield left[begin : begin + size]


def request_of(
    folder: Path, question: Question, blind: bool, read: Callable[[Path, str], NDArray[np.uint8]] = read_picture
) -> Request:
    """The request to a model; ``blind``: without the images and the words that announce them."""
    if blind:
        return Request(question.text)
    pictures = [read(folder, path) for path in question.images]
    return Request(picture_lines(len(pictures)) + question.text, pictures)


def score_run(path: str | Path, settings: ReasonSettings, questions: Sequence[Question]) -> list[Scored]:
    """Every question with the scores of its answer, of the constant one and of the blind one."""
    answers, folder = read_answers(path), Path(settings.data)
    training = read_questions(folder, ["train"]) if "train" in splits_of(folder) else []
    constants = ConstantAnswers(training)
    scored = []
    for question in questions:
        line, blind = answers[question.id, False], answers.get((question.id, True))
        constant = constants.answer(question)
        scored.append(
            Scored(
                question,
                score(question, line["answer"]),
                bool(line["cut"]),
                None if constant is None else score(question, constant),
                None if blind is None else score(question, blind["answer"]),
            )
        )
    return scored


def tables_of(scored: Sequence[Scored]) -> dict[str, dict[str, Row]]:
    """Rows by kind, by family, by split, and of kinds whose answers are places by object."""

    def kind_of(question: Question) -> str:
        """The kind; questions about a thing that never moves are counted apart."""
        return f"{question.kind} (fixed things)" if question.fixed else question.kind

    placed = [one for one in scored if one.question.form in ("point", "box")]
    return {
        "kind": summarise(scored, kind_of),
        "family": summarise([one for one in scored if not one.question.fixed], lambda question: question.family),
        "split": summarise(scored, lambda question: question.split),
        "object": summarise(placed, lambda question: f"{kind_of(question)}: {question.about}"),
        "task": summarise(scored, lambda question: question.task) if scored[0].question.task else {},
    }


def _finish(path: Path, settings: ReasonSettings, run: AnswerRun, scored: Sequence[Scored]) -> None:
    tables = {name: {key: row.as_dict() for key, row in rows.items()} for name, rows in run.rows.items()}
    summary = {"schema": SCHEMA, "questions": len(scored), "overall": run.overall.as_dict(), **tables}
    write_whole(path / SUMMARY_FILE, (json.dumps(summary, indent=2, ensure_ascii=False) + "\n").encode())
    if settings.pictures:
        answers = read_answers(path)
        page = wrong_page(Path(settings.data), scored, {key: line["answer"] for key, line in answers.items()}, settings)
        write_whole(path / PAGE_FILE, page.encode())
