"""A policy with a language head is asked like a vision-language model."""

from __future__ import annotations

from pathlib import Path

import pytest
from demonstrations import tiny_config
from fabricate_questions import write_folder

from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.answering import AnsweringPolicy, reasoning_settings
from vlaser_gym.agents.vlaser.chat import Request
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.reasoning.asking import ask_all, read_answers, request_of
from vlaser_gym.reasoning.folder import read_questions
from vlaser_gym.reasoning.models import make_answerer
from vlaser_gym.settings.commands import ReasonSettings


@pytest.mark.parametrize("acts", [True, False])
def test_its_answers_are_stored_and_scored(acts: bool, tmp_path: Path) -> None:
    config = tiny_config(**reasoning_settings(96))
    agent = TrainableVlaser(VlaserPolicy.initialise(config, seed=4), nano_processor(config), acts=acts)
    agent.save(tmp_path / "policy")
    data = write_folder(tmp_path / "q", layouts=2)
    settings = ReasonSettings(
        data=str(data), checkpoint=str(tmp_path / "policy"), run=str(tmp_path / "run"), batch=3, max_new_tokens=4,
        pictures=0, device="cpu",
    )  # fmt: skip
    run = ask_all(settings, make_answerer(settings))
    questions = read_questions(data, ["test"])
    answers = read_answers(run.path)
    assert len(answers) == 2 * len(questions)
    asked = AnsweringPolicy.load(tmp_path / "policy")
    for question in questions[:3]:
        reply = asked.replies([request_of(data, question, False)], max_new_tokens=4)[0]
        assert (answers[question.id, False]["answer"], answers[question.id, False]["cut"]) == (reply.text, reply.cut)
        blind = asked.replies([Request(question.text)], max_new_tokens=4)[0]
        assert answers[question.id, True]["answer"] == blind.text


def test_a_policy_without_a_head_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    config = tiny_config()
    TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config)).save(tmp_path / "policy")
    for checkpoint in ("nano", str(tmp_path / "policy")):
        with pytest.raises(InvalidConfigError, match="without a language head: it acts and cannot answer"):
            make_answerer(ReasonSettings(data="q", checkpoint=checkpoint, device="cpu"))
