"""The convert command, from its arguments to the files it leaves."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from fabricate import Sizes, released, released_groups, vlm
from safetensors.torch import load_file, save_file
from torch import Tensor

from vlaser_gym.agents.vlaser.agent import load_agent
from vlaser_gym.agents.vlaser.checkpoint import load_policy, load_pretrained, save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import SHORT_TEMPLATE, Processor
from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.agents.vlaser.statistics import BRIDGE, FRACTAL, Statistics
from vlaser_gym.agents.vlaser.tokenizer import ByteTokenizer
from vlaser_gym.cli import run
from vlaser_gym.commands.convert import main

#: The released vocabulary and image size, everything else small.
SIZES = Sizes(vocab=151_930, width=8, expert=4, positions=1025, vision=64)
#: A plain VLM's, which has no tokens for actions.
VLM_SIZES = dataclasses.replace(SIZES, vocab=151_674)


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
    sizes = VLM_SIZES
    source = tmp_path / "vlm"
    source.mkdir()
    save_file(vlm(sizes), source / "model.safetensors")
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


# ---------------------------------------------------------------------- what it writes, it reads


def assert_same_folders(a: Path, b: Path) -> None:
    """Every file that both layouts can hold has the same content, tensors bit for bit."""
    names = sorted(file.name for file in a.iterdir())
    assert sorted(file.name for file in b.iterdir()) == names
    for name in names:
        if name.endswith(".safetensors"):
            before, after = load_file(a / name), load_file(b / name)
            assert before.keys() == after.keys()
            for key, tensor in before.items():
                assert tensor.dtype == after[key].dtype, key
                assert torch.equal(tensor.view(torch.uint8), after[key].view(torch.uint8)), key
        else:
            assert json.loads((a / name).read_text()) == json.loads((b / name).read_text()), name


def test_nano_there_and_back(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Widths of heads, flow steps, prompt, resizing and statistics come back too: none can be seen in the tensors."""
    shutil.copytree(SHIPPED / "nano", tmp_path / "nano", ignore=shutil.ignore_patterns("README.md"))
    convert(f"source={tmp_path}/nano", f"target={tmp_path}/nano.pt")
    convert(f"source={tmp_path}/nano.pt", f"target={tmp_path}/back")
    assert_same_folders(tmp_path / "nano", tmp_path / "back")
    assert "this gym alone can read the file" in capsys.readouterr().out
    shutil.rmtree(tmp_path / "nano")
    agent, shipped = (load_agent(str(path), device="cpu") for path in (tmp_path / "nano.pt", SHIPPED / "nano"))
    assert agent.policy.config == shipped.policy.config
    assert (agent.processor.statistics, agent.processor.resize) == (
        shipped.processor.statistics,
        shipped.processor.resize,
    )
    assert agent.processor.prompt.template == shipped.processor.prompt.template


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_toy_there_and_back(tmp_path: Path, dtype: str) -> None:
    """Its vision heads are not those that its width suggests."""
    policy = VlaserPolicy.initialise(VlaserConfig.preset("toy", "google_robot", horizon=6), seed=3)
    save_pretrained(policy.to(getattr(torch, dtype)), tmp_path / "a")
    dataclasses.replace(FRACTAL, num_trajectories=7).save(tmp_path / "a")
    convert(f"source={tmp_path}/a", f"target={tmp_path}/a.pt")
    convert(f"source={tmp_path}/a.pt", f"target={tmp_path}/b")
    assert_same_folders(tmp_path / "a", tmp_path / "b")
    convert(f"source={tmp_path}/b", f"target={tmp_path}/b.pt")
    assert (tmp_path / "b.pt").stat().st_size == (tmp_path / "a.pt").stat().st_size


def test_a_policy_grown_from_a_vlm_gets_the_rows_that_the_original_wants(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = vlm(VLM_SIZES)
    (tmp_path / "vlm").mkdir()
    save_file(state, tmp_path / "vlm" / "model.safetensors")
    (tmp_path / "vlm" / "config.json").write_text(json.dumps({"llm_config": {"num_attention_heads": 2}}))
    grown, _ = load_policy(tmp_path / "vlm", settings={"expert_width": 4, "expert_mlp": 64})
    head = state["language_model.lm_head.weight"]
    save_pretrained(grown, tmp_path / "a", {"internvl_model.language_model.lm_head.weight": head})
    BRIDGE.save(tmp_path / "a")

    convert(f"source={tmp_path}/a", f"target={tmp_path}/a.pt")
    written = torch.load(tmp_path / "a.pt", weights_only=True)["model"]
    # What the original's loader does: no key may be missing, and torch refuses every other shape.
    expected = {key: shape for keys, shape in released_groups(SIZES) for key in keys}
    assert {key: tuple(tensor.shape) for key, tensor in written.items()} == expected
    for key, table in (("embed_tokens", state["language_model.model.embed_tokens.weight"]), ("lm_head", head)):
        inside = written[f"internvl_model.language_model.{'model.' * (key == 'embed_tokens')}{key}.weight"]
        assert torch.equal(inside[:151_674], table)
        assert not inside[151_674:].any()
    assert torch.equal(written["embed_tokens.weight"][:151_674], grown.embed_tokens.weight)
    assert "appended 256 rows of zeros" in capsys.readouterr().out

    convert(f"source={tmp_path}/a.pt", f"target={tmp_path}/b", "keep_unused=true")
    assert_same_folders(tmp_path / "a", tmp_path / "b")


def test_an_original_file_with_a_vlms_rows_gets_them_too(tmp_path: Path) -> None:
    """The DEBUG_JOINT variant has 151,674 rows; the evaluation's loader wants the usual ones."""
    state = released(VLM_SIZES)
    torch.save(state, tmp_path / "joint.pt")
    convert(f"source={tmp_path}/joint.pt", f"target={tmp_path}/usual.pt")
    written = torch.load(tmp_path / "usual.pt", weights_only=True)["model"]
    assert {key: tuple(tensor.shape) for key, tensor in written.items()} == {
        key: shape for keys, shape in released_groups(SIZES) for key in keys
    }
    for key, tensor in state.items():
        assert torch.equal(written[key][: len(tensor)], tensor), key


# ---------------------------------------------------------------------- statistics


def test_a_policys_statistics_survive_a_new_tokenizer(tmp_path: Path) -> None:
    """They were replaced by Bridge's, and the prompt by Vlaser's, when tokenizer= was given."""
    policy = VlaserPolicy.initialise(VlaserConfig.preset("nano"))
    own = dataclasses.replace(BRIDGE, num_trajectories=7)
    save_pretrained(policy, tmp_path / "a")
    Processor.build(policy.config, ByteTokenizer(), template=SHORT_TEMPLATE, statistics=own).save(tmp_path / "a")
    convert(f"source={tmp_path}/a", f"target={tmp_path}/b", "tokenizer=bytes")
    assert Statistics.load(tmp_path / "b") == own
    assert json.loads((tmp_path / "b" / "processor.json").read_text())["template"] == SHORT_TEMPLATE


def test_statistics_of_the_target(
    tmp_path: Path, file: tuple[Path, dict[str, Tensor]], capsys: pytest.CaptureFixture[str]
) -> None:
    """An original file has none and gets its robot's, said; a VLM's policy gets none; a given one is checked."""
    convert(f"source={file[0]}", f"target={tmp_path}/a")
    assert "statistics of bridge" in capsys.readouterr().out
    assert Statistics.load(tmp_path / "a") == BRIDGE
    mine = dataclasses.replace(BRIDGE, num_trajectories=7)
    (tmp_path / "mine").mkdir()
    mine.save(tmp_path / "mine")
    convert(f"source={file[0]}", f"target={tmp_path}/b.pt", f"statistics={tmp_path}/mine/statistics.json")
    convert(f"source={tmp_path}/b.pt", f"target={tmp_path}/b")
    assert Statistics.load(tmp_path / "b") == mine
    capsys.readouterr()
    with pytest.raises(SystemExit):
        convert(f"source={file[0]}", f"target={tmp_path}/c", "statistics=fractal")
    assert "Statistics for widowx have 7 proprioceptive dimensions; fractal has 8." in capsys.readouterr().err


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
