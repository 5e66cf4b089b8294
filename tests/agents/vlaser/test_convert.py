"""The convert command, from its arguments to the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricate import Sizes, released, vlm
from safetensors.torch import save_file
from torch import Tensor

from vlaser_gym.agents.vlaser.checkpoint import load_policy, load_pretrained, save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Processor
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.cli import run
from vlaser_gym.convert import main

#: The released vocabulary and image size, everything else small.
SIZES = Sizes(vocab=151_674, width=8, expert=4, positions=1025, vision=64)


def convert(*arguments: object) -> None:
    run("convert", main, [str(argument) for argument in arguments])


@pytest.fixture
def file(tmp_path: Path) -> tuple[Path, dict[str, Tensor]]:
    state = released(SIZES, torch.bfloat16)
    path = tmp_path / "step36970.pt"
    torch.save({"model": {f"_orig_mod.{key}": value for key, value in state.items()}}, path)
    return path, state


def test_released_to_folder_and_back(
    tmp_path: Path, file: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    path, state = file
    convert(f"source={path}", f"target={tmp_path}/folder", "time_max_period=100", "keep_unused=true")
    out = capsys.readouterr().out
    assert f"found    {len(state)} tensors ({len(state)} bfloat16" in out
    assert "missing  0 parameters" in out
    assert "time_max_period=100.0" in out
    assert "the action expert's text head" in out
    assert "no tokenizer" in out
    policy = load_pretrained(tmp_path / "folder", robot="widowx")
    assert policy.config.time_max_period == 100.0
    assert torch.equal(policy.embed_tokens.weight, state["embed_tokens.weight"])
    convert(f"source={tmp_path}/folder", f"target={tmp_path}/again.pt")
    assert "made up" not in capsys.readouterr().out
    again = torch.load(tmp_path / "again.pt", weights_only=True)["model"]
    assert set(again) == set(state)
    assert all(torch.equal(again[key], value) for key, value in state.items())


def test_a_folder_without_text_heads_says_what_it_makes_up(
    tmp_path: Path, file: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    convert(f"source={file[0]}", f"target={tmp_path}/folder", "dtype=float32")
    assert load_pretrained(tmp_path / "folder").dtype == torch.float32
    convert(f"source={tmp_path}/folder", f"target={tmp_path}/again.pt", "dtype=bfloat16")
    out = capsys.readouterr().out
    assert out.count("made up  internvl_model") == 2
    policy, report = load_policy(tmp_path / "again.pt")
    assert policy.dtype == torch.bfloat16
    assert len(report.ignored) == 2


def test_vlm_to_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "vlm"
    source.mkdir()
    save_file(vlm(SIZES), source / "model.safetensors")
    (source / "config.json").write_text(json.dumps({"llm_config": {"num_attention_heads": 2}}))
    convert(f"source={source}", f"target={tmp_path}/start", "robot=google_robot", "seed=3")
    out = capsys.readouterr().out
    assert "drawn at random" in out
    for module in ("expert", "action_encoder", "proprio_encoder", "action_decoder"):
        assert f"         {module}\n" in out
    policy = load_pretrained(tmp_path / "start")
    assert (policy.config.robot, policy.config.expert_width) == ("google_robot", 768)


def test_files_of_the_processor_come_along(tmp_path: Path) -> None:
    policy = VlaserPolicy.initialise(VlaserConfig.preset("nano"))
    save_pretrained(policy, tmp_path / "a")
    Processor.build(policy.config, ByteTokenizer(), template=SHORT_TEMPLATE).save(tmp_path / "a")
    convert(f"source={tmp_path}/a", f"target={tmp_path}/b", "dtype=bfloat16")
    for name in ("processor.json", "statistics.json"):
        assert (tmp_path / "b" / name).read_text() == (tmp_path / "a" / name).read_text()
    assert load_pretrained(tmp_path / "b").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["source={path}", "target={path}"], "Source and target should differ"),
        (["source={path}", "target={tmp}/x", "robot=google_robot"], "so it is for widowx"),
        (["source={path}", "target={tmp}/x", "robot=panda"], "Unknown robot 'panda'"),
        (["source={path}", "target={tmp}/x", "dtype=int8"], "Unknown dtype 'int8'"),
        (["source={path}", "target={tmp}/taken.pt"], "exists already"),
        (["source={path}", "target={tmp}/note.txt"], "is a file"),
        (["source={tmp}/nothing", "target={tmp}/x"], "does not exist"),
        (["source={path}"], "target has no default"),
        (["source={path}", "target={tmp}/x", "periode=3"], "Unknown key 'periode'"),
    ],
)
def test_bad_arguments_end_with_one_sentence(
    tmp_path: Path,
    file: tuple[Path, dict[str, Tensor]],
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    sentence: str,
) -> None:
    (tmp_path / "taken.pt").write_text("")
    (tmp_path / "note.txt").write_text("")
    values: dict[str, Any] = {"path": file[0], "tmp": tmp_path}
    with pytest.raises(SystemExit) as end:
        convert(*(argument.format(**values) for argument in arguments))
    assert end.value.code == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
