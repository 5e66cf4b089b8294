"""Data sets, the image cache and trainers die at every point; see ``tests/killed.py``.

The fast tests try points far apart and take about a minute together; those marked slow and long try every one.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_dpo
import test_ppo
import test_sft
import torch
from demonstrations import SIZE, fake_episode, write_set
from killed import contents, every_point

from vlaser_gym.agents.vlaser.processor import ResizeImage
from vlaser_gym.commands.train import keep_settings
from vlaser_gym.envs.address import Address
from vlaser_gym.evaluation.lerobot import LeRobotReader, LeRobotWriter
from vlaser_gym.storage.files import remove_leftovers
from vlaser_gym.storage.locks import held
from vlaser_gym.training.data.pictures import cached_pixels
from vlaser_gym.training.trainer import Trainer

FAILED = Address("widowx_stack_cube", layout="region:5")


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Curves and events are for people to look at: drawn in seconds, and tested elsewhere."""

    class Silent:
        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *arguments, **options: None

    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)
    monkeypatch.setattr("torch.utils.tensorboard.SummaryWriter", lambda *_, **__: Silent())


# ---------------------------------------------------------------------- data sets and images


def write_data_set(folder: Path) -> None:
    with LeRobotWriter(folder / "set", fps=5, robot="widowx", group=2) as writer:
        if FAILED not in writer.addresses:
            writer.drop(FAILED)
        for number in range(5):
            if fake_episode(number).address not in writer.addresses:
                writer.add(fake_episode(number, 3))


@pytest.mark.long
def test_a_data_set_survives_death_at_every_point(tmp_path, record_property):
    deaths = every_point(write_data_set, tmp_path, contents)
    record_property("deaths", deaths)
    assert deaths > 80


@pytest.mark.slow
def test_the_picture_cache_survives_death_at_every_point(tmp_path, record_property):
    data = write_set(tmp_path / "data", 3)
    wanted = np.concatenate([fake_episode(number, 5 + number % 2).frames for number in range(3)])

    def decode(folder: Path) -> None:
        found = cached_pixels(LeRobotReader(data), ResizeImage(SIZE), cache=folder / "cache")
        np.testing.assert_array_equal(found, wanted)

    (tmp_path / "caches").mkdir()
    deaths = every_point(decode, tmp_path / "caches", contents)
    record_property("deaths", deaths)
    assert deaths > 6


# ---------------------------------------------------------------------- trainers


def train(make: Callable[[Path], Trainer]) -> Callable[[Path], None]:
    """As the command does it around a trainer."""

    def work(folder: Path) -> None:
        torch.set_num_threads(1)
        with held(folder / "run", "another run="):
            remove_leftovers(folder / "run")
            trainer = make(folder)
            keep_settings(folder / "run", {"algo": {"name": "x"}}, {})
            assert trainer.run()

    return work


def end_of(folder: Path) -> dict[str, Any]:
    """Everything but clocks: the lines of numbers without a pace, and every start of a run is on record."""
    found: dict[str, Any] = contents(folder / "run", ("starts.jsonl",))
    rows = [json.loads(line) for line in found["metrics.jsonl"].splitlines()]
    found["metrics.jsonl"] = [{n: v for n, v in row.items() if n != "samples_per_second"} for row in rows]
    # The order in which torch numbers a file's parts depends on what was loaded before: what is in them does not.
    for name in {"trainer.pt", "trainer.pt.previous"} & found.keys():
        found[name] = plain(torch.load(io.BytesIO(found[name]), weights_only=True))
    return found


def plain(value: Any) -> Any:
    """Tensors as bytes, so that ``==`` compares everything."""
    if isinstance(value, torch.Tensor):
        return str(value.dtype), tuple(value.shape), value.reshape(-1).view(torch.uint8).numpy().tobytes()
    if isinstance(value, dict):
        return {name: plain(entry) for name, entry in value.items()}
    return [plain(entry) for entry in value] if isinstance(value, list | tuple) else value


def trainer_of(algo: str, tmp_path: Path) -> tuple[Callable[[Path], Trainer], Callable[[Path], Any]]:
    if algo == "sft":
        data = test_sft.read(write_set(tmp_path / "data", 4))

        def evaluated(policy: Any) -> dict[str, float]:
            return {"success/mean": 0.5}

        return (
            lambda folder: test_sft.build(data, folder / "run", evaluate=evaluated, evaluate_every=3, steps=6),
            Path.mkdir,
        )
    if algo == "ppo":
        return lambda folder: test_ppo.make(folder / "run", save_every=1, n_steps=2, batch_size=8), Path.mkdir
    test_dpo.make(tmp_path / "episodes")
    episodes = [tmp_path / "episodes" / "data"]
    return lambda folder: test_dpo.make(folder, data=episodes, rounds=0, epochs=2), Path.mkdir


@pytest.mark.parametrize(("algo", "first"), [("sft", 40), ("ppo", 50), ("dpo", 60)])
def test_a_trainer_survives_death_at_some_points(tmp_path, algo, first):
    make, prepare = trainer_of(algo, tmp_path)
    (tmp_path / "runs").mkdir()
    assert every_point(train(make), tmp_path / "runs", end_of, every=101, first=first, prepare=prepare) > 0


@pytest.mark.long
@pytest.mark.parametrize("algo", ["sft", "ppo", "dpo"])
def test_a_trainer_survives_death_at_every_point(tmp_path, algo, record_property):
    make, prepare = trainer_of(algo, tmp_path)
    (tmp_path / "runs").mkdir()
    deaths = every_point(train(make), tmp_path / "runs", end_of, prepare=prepare)
    record_property("deaths", deaths)
    assert deaths > 100
