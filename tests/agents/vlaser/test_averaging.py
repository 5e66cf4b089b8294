"""``convert average=``: the mean of several policies' weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from vlaser_gym.agents.vlaser.averaging import average_into
from vlaser_gym.agents.vlaser.checkpoint import CheckpointError, load_pretrained, save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Processor
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.cli import run
from vlaser_gym.commands.convert import main


def checkpoint(folder: Path, seed: int, dtype: torch.dtype = torch.float32) -> Path:
    """A tiny policy's folder; every seed has other weights."""
    policy = VlaserPolicy.initialise(VlaserConfig.preset("nano"), seed=seed)
    with torch.no_grad():
        for weights in policy.parameters():
            weights.add_(0.01 * seed)
    save_pretrained(policy.to(dtype), folder)
    Processor.build(policy.config, ByteTokenizer(), template=SHORT_TEMPLATE).save(folder)
    return folder


def test_the_target_holds_the_mean_of_every_weight(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folders = [checkpoint(tmp_path / str(seed), seed) for seed in (1, 2, 4)]
    names = ",".join(map(str, folders[1:]))
    run("convert", main, [f"source={folders[0]}", f"average=[{names}]", f"target={tmp_path}/mean"])
    assert "averaged 3 policies" in capsys.readouterr().out
    weights = [load_file(folder / "model.safetensors") for folder in (*folders, tmp_path / "mean")]
    for name, mean in weights.pop().items():
        by_hand = np.mean([each[name].astype(np.float64) for each in weights], axis=0)
        np.testing.assert_allclose(mean, by_hand, atol=1e-6, err_msg=name)
    for name in ("config.json", "processor.json", "statistics.json"):
        assert (tmp_path / "mean" / name).read_text() == (folders[0] / name).read_text()
    load_pretrained(tmp_path / "mean")  # its checksum is its own


def test_a_period_that_no_file_says_is_every_policys(tmp_path: Path) -> None:
    """Released files hold no ``time_max_period``: the given one must not tell the source from the others."""
    a, b = checkpoint(tmp_path / "a", 1), checkpoint(tmp_path / "b", 2)
    run("convert", main, [f"source={a}", f"average=[{b}]", f"target={tmp_path}/mean", "time_max_period=50"])
    assert load_pretrained(tmp_path / "mean").config.time_max_period == 50


def test_half_precision_is_rounded_once(tmp_path: Path) -> None:
    """The mean of seven copies is the number itself, which sums in bf16 would miss."""
    folder = checkpoint(tmp_path / "a", 1, torch.bfloat16)
    policy = load_pretrained(folder)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    average_into(policy, folder, [folder] * 6)
    assert policy.dtype == torch.bfloat16
    for name, tensor in policy.state_dict().items():
        assert torch.equal(tensor, before[name]), name


@pytest.mark.parametrize("file", ["config.json", "processor.json", "statistics.json"])
def test_what_differs_in_more_than_weights_is_refused(tmp_path: Path, file: str) -> None:
    a, b = checkpoint(tmp_path / "a", 1), checkpoint(tmp_path / "b", 2)
    stored = json.loads((b / file).read_text())
    if file == "config.json":
        stored["policy"]["num_flow_steps"] += 1
    elif file == "processor.json":
        stored["wrap"] = "Do: {instruction}"
    else:
        stored["action"]["p99"][0] += 0.1
    (b / file).write_text(json.dumps(stored))
    policy = load_pretrained(a)
    before = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"differ in their weights alone; .* Average checkpoints"):
        average_into(policy, a, [b])
    assert all(torch.equal(before[name], tensor) for name, tensor in policy.state_dict().items())
