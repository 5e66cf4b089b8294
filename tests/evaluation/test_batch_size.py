"""An evaluation's forward passes have one size: chosen by its plan, recorded, and kept when it goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_env import FakeVectorEnv

from vlaser_gym import cli
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.errors import StorageError
from vlaser_gym.evaluation import evaluator
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.store import read_config


class PictureEnv(FakeVectorEnv):
    """With an image and a pose that a policy can read."""

    def _observe(self) -> dict[str, Any]:
        pose = np.tile(np.float32([0, 0, 0, 1, 0, 0, 0, 1]), (self.num_envs, 1))
        pose[:, :3] = self.point
        shade = (1e4 * self.point.sum(1)).astype(np.int64) % 256
        pictures = np.broadcast_to(shade[:, None, None, None], (self.num_envs, 48, 64, 3)).astype(np.uint8)
        told = tuple("" if address is None else "stack the cubes" for address in self.addresses)
        return {"image": pictures, "proprio": pose, "instruction": told}


def make_env(settings: EvalSettings, tasks: Sequence[str], num_envs: int, observe: Sequence[str]) -> PictureEnv:
    return PictureEnv(tasks, num_envs, observe)


def settings(run: Path, *overrides: str) -> EvalSettings:
    base = ["task=widowx_stack_cube", "agent=vlaser_nano", "episodes=7", f"run={run}"]
    return EvalSettings.from_config(cli.load("eval", [*base, *overrides]))


def files(run: Path) -> dict[str, bytes]:
    return {str(p.relative_to(run)): p.read_bytes() for p in [run / "episodes.jsonl", *run.glob("states/*")]}


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of every forward pass."""
    seen: list[int] = []
    decide = VlaserPolicy.decide

    def watched(self: VlaserPolicy, pixels: Any, *rest: Any, **options: Any) -> Any:
        seen.append(len(pixels))
        return decide(self, pixels, *rest, **options)

    monkeypatch.setattr(VlaserPolicy, "decide", watched)
    return seen


class StoppedError(Exception):
    """Somebody ends the process."""


def stop_after(count: int) -> Any:
    left = iter(range(count - 1))

    def stop(record: Any) -> None:
        if next(left, None) is None:
            raise StoppedError

    return stop


def test_a_run_that_goes_on_with_other_environments_leaves_the_same_bytes(
    tmp_path: Path, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate(settings(tmp_path / "whole", "num_envs=3"), make_env=make_env)
    with pytest.raises(StoppedError):
        evaluate(settings(tmp_path / "parts", "num_envs=7"), make_env=make_env, on_episode=stop_after(3))
    assert read_config(tmp_path / "parts")["agent_settings"]["micro_batch"] == 8
    # A later version chooses another size for the same plan; the run keeps its own.
    monkeypatch.setattr(evaluator, "batch_size_for", lambda episodes: 2)
    assert evaluate(settings(tmp_path / "parts", "num_envs=2"), make_env=make_env).complete
    assert files(tmp_path / "parts") == files(tmp_path / "whole")
    assert set(sizes) == {8}


def test_the_size_fits_the_plan_and_not_the_environments(tmp_path: Path, sizes: list[int]) -> None:
    for count in (1, 3):
        evaluate(settings(tmp_path / str(count), "episodes=3", f"num_envs={count}"), make_env=make_env)
    assert files(tmp_path / "1") == files(tmp_path / "3")
    assert set(sizes) == {4}


def test_a_given_size_is_taken_and_no_other_may_follow(tmp_path: Path, sizes: list[int]) -> None:
    with pytest.raises(StoppedError):
        evaluate(settings(tmp_path, "agent.micro_batch=5"), make_env=make_env, on_episode=stop_after(1))
    with pytest.raises(StorageError, match=r"agent_settings\.micro_batch was 5, now 6"):
        evaluate(settings(tmp_path, "agent.micro_batch=6"), make_env=make_env)
    assert evaluate(settings(tmp_path), make_env=make_env).complete
    assert set(sizes) == {5}


def test_runs_of_before_the_open_size_go_on(tmp_path: Path, sizes: list[int]) -> None:
    """They hold ``agent.micro_batch: 8``, or none, and in either case what was in effect."""
    with pytest.raises(StoppedError):
        evaluate(settings(tmp_path, "episodes=3"), make_env=make_env, on_episode=stop_after(1))
    file = tmp_path / "config.yaml"
    text = file.read_text()
    assert "  micro_batch: null\n" in text
    file.write_text(
        text.replace("  micro_batch: null\n", "  micro_batch: 8\n").replace("micro_batch: 4", "micro_batch: 8")
    )
    sizes.clear()
    assert evaluate(settings(tmp_path, "episodes=3"), make_env=make_env).complete
    assert set(sizes) == {8}
