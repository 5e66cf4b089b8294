"""The data card of a folder of questions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from vlaser_gym.reasoning.folder import Question, read_questions, splits_of
from vlaser_gym.reasoning.moments import Moment
from vlaser_gym.settings.commands import QuestionsSettings

_HEAD = """# Questions from scenes

Images of simulated scenes and questions whose answers the simulator knows, made by `python -m vlaser_gym.questions`.
{count} questions, {pictures} images of {layouts} layouts (task and layout). Nothing here was labelled by a person or
by a model.

- `SPLIT.jsonl`: conversations in InternVL's fine-tuning format; `meta.json` names them all. Places are integers from 0
  to 1000.
- `truth/SPLIT.jsonl`: the same questions in the same order, with what answers are scored by.
- `moments.jsonl`: what is true in every image. `episodes/`: the runs that the images are of.
- Training has region layouts, all other splits have grid layouts: they share none.
- Within kind, wording and object every option of a choice is right equally often.

Known limits: the scenes are the gym's own, rendered; things are named by one name each; numbers are those of centres,
which are not always seen; `fixed` questions are about things that never move and say little.
"""


def data_card(folder: Path, settings: QuestionsSettings, moments: Sequence[Moment]) -> str:
    """The text of ``README.md``."""
    splits = splits_of(folder)
    questions = read_questions(folder, splits)
    pictures = {path for question in questions for path in question.images}
    layouts = {(moment.task, moment.layout) for moment in moments if moment.image in pictures}
    head = _HEAD.format(count=len(questions), pictures=len(pictures), layouts=len(layouts))
    sections = [
        head,
        _table("kind", splits, questions, lambda question: f"{question.family}: {question.kind}"),
        _table("task", splits, questions, lambda question: question.task),
        _table("look", splits, questions, lambda question: question.look),
        f"Settings: task={settings.task} count={settings.count} seed={settings.seed}; all are in `settings.json`.\n",
    ]
    return "\n".join(sections)


def _table(title: str, splits: Sequence[str], questions: Sequence[Question], key: object) -> str:
    assert callable(key)
    counts = Counter((key(question), question.split) for question in questions)
    rows = sorted({name for name, _ in counts})
    lines = [f"| {title} | {' | '.join(splits)} |", f"| --- |{' ---: |' * len(splits)}"]
    lines += [f"| {row} | {' | '.join(str(counts[row, split]) for split in splits)} |" for row in rows]
    return "\n".join([*lines, ""])
