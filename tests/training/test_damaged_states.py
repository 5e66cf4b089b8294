"""Trainer states damaged at random: a sentence each, or a state that can be gone on with; the slow test tries 500."""

from __future__ import annotations

import random

import pytest
import test_dpo
import test_ppo
import test_sft
import torch
from damage import JUNK, WAYS, spoil
from demonstrations import write_set

from vlaser_gym.errors import GymError


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)


def stored(algo, tmp_path):
    """A trainer that has stored its state."""
    if algo == "sft":
        trainer = test_sft.build(test_sft.read(write_set(tmp_path / "data", 2)), tmp_path / "run", steps=1)
    elif algo == "ppo":
        trainer = test_ppo.make(tmp_path / "run", iterations=1, n_steps=2, batch_size=8)
    else:
        trainer = test_dpo.make(tmp_path, rounds=0, epochs=1)
    assert trainer.run()
    return trainer


def try_all(trainer, seeds):
    """Of each seed, a file with other bytes, or another content in a file that is whole; how often it was noticed."""
    file, noticed = trainer.path / "trainer.pt", 0
    data = file.read_bytes()
    for seed in seeds:
        luck = random.Random(seed)
        if luck.random() < 0.4:
            file.write_bytes(luck.choice(WAYS)(data, luck))
        else:
            file.write_bytes(data)
            state = torch.load(file, weights_only=True)
            spoil(state, luck)
            torch.save(luck.choice(JUNK) if luck.random() < 0.1 else state, file)
        try:
            trainer.load()
        except GymError as sentence:
            noticed += "\n" not in str(sentence) or pytest.fail(f"{seed}: {sentence}")
        except Exception as other:
            raise AssertionError(f"{seed}: {type(other).__name__}: {other}") from other
    return noticed


@pytest.mark.parametrize("algo", ["sft", "ppo", "dpo"])
def test_some_damage_is_a_sentence(tmp_path, algo):
    assert try_all(stored(algo, tmp_path), range(30)) > 10


@pytest.mark.long
def test_five_hundred_damaged_states_are_a_sentence_each(tmp_path):
    for algo, count in (("sft", 200), ("ppo", 150), ("dpo", 150)):
        (tmp_path / algo).mkdir()
        assert try_all(stored(algo, tmp_path / algo), range(1000, 1000 + count)) > count / 3
