"""Questions from scenes: ``python -m vlaser_gym.questions output=DIR task=widowx count=1000``; ``--help`` lists the
keys.
"""

from __future__ import annotations

from omegaconf import DictConfig

from vlaser_gym.cli import run, typed
from vlaser_gym.reasoning.making import make_questions
from vlaser_gym.settings.commands import QuestionsSettings


def main(config: DictConfig) -> None:
    """Make what is missing of the questions."""
    settings = typed(QuestionsSettings, config)
    counts = make_questions(settings, lambda text: print(text, flush=True))
    print(f"{sum(counts.values())} questions in {settings.output}")


def command() -> None:
    """``python -m vlaser_gym.questions``."""
    run("questions", main)
