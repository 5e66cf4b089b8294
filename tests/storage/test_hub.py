"""Names of the Hugging Face hub, against a hub on this machine and against none."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import numpy as np
import pytest
import torch
from fake_hub import hub
from huggingface_hub import constants

from vlaser_gym.agents import make_agent
from vlaser_gym.agents.vlaser.agent import load_agent
from vlaser_gym.agents.vlaser.hub import PretrainedVlaser
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.storage.hub import is_hub_name, local_folder

LANE = np.array([0])


@pytest.fixture
def repositories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, dict[str, bytes]]]:
    with hub() as (address, repositories):
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", address)
        monkeypatch.setattr(huggingface_hub.hf_api.api, "token", "hf_x")
        yield repositories


@pytest.mark.parametrize(
    ("name", "is_one"),
    [
        ("OpenGVLab/Vlaser-2B", True),
        ("me/policy@v1.0", True),
        ("nano", False),
        ("a/b/c", False),
        ("/a/b", False),
        ("weights/bridge.pt", False),
        ("../b", False),
    ],
)
def test_what_can_be_a_name_on_the_hub(name: str, is_one: bool) -> None:
    assert is_hub_name(name) == is_one


def test_what_is_here_or_could_be_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "runs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not is_hub_name("runs/mine")
    assert local_folder("runs/mine", "checkpoint") == Path("runs/mine")


def test_a_policy_goes_to_the_hub_and_comes_back_the_same(repositories: dict[str, dict[str, bytes]]) -> None:
    policy = PretrainedVlaser.from_pretrained("nano")
    url = policy.push_to_hub("me/nano", token="hf_x")
    assert url.endswith("/me/nano/commit/0123456789abcdef0123456789abcdef01234567")
    files = repositories["me/nano"]
    assert {"README.md", "config.json", "model.safetensors", "processor.json", "statistics.json"} <= set(files)
    files["evil.pt"] = b"no"
    again = PretrainedVlaser.from_pretrained("me/nano")
    mine = policy.policy.state_dict()
    assert mine.keys() == again.policy.state_dict().keys()
    assert all(torch.equal(value, mine[name]) for name, value in again.policy.state_dict().items())
    folder = local_folder("me/nano@main", "checkpoint")
    assert not (folder / "evil.pt").exists()
    seen = {
        "image": np.full((1, 480, 640, 3), 90, np.uint8),
        "proprio": np.array([[0.3, 0, 0.1, 0.7, 0, 0.7, 0, 1]], np.float32),
        "instruction": ("put the spoon on the towel",),
    }
    chunks = []
    for agent in (
        load_agent("nano"),
        make_agent({"_target_": "vlaser_gym.agents.vlaser.agent.load_agent", "checkpoint": "me/nano"}),
    ):
        agent.reset(LANE, [Address("widowx_spoon_on_towel")])
        chunks.append(agent.act(seen, LANE))
    np.testing.assert_array_equal(*chunks)


def test_the_card_says_what_the_policy_is(tmp_path: Path) -> None:
    policy = PretrainedVlaser.from_pretrained("nano")
    policy.save_pretrained(tmp_path, model_card_kwargs={"notes": "Trained on 100 demonstrations."})
    card = huggingface_hub.ModelCard.load(tmp_path / "README.md")
    assert card.data.library_name == "vlaser-gym"
    assert card.data.pipeline_tag == "robotics"
    count = sum(p.numel() for p in policy.policy.parameters())
    for part in (
        "A Vlaser policy for widowx",
        f"{count:,} parameters",
        "-1 closed to 1 open",
        "100 demonstrations",
        "4 actions",
    ):
        assert part in card.content
    assert PretrainedVlaser.from_pretrained(tmp_path).robot == "widowx"


def test_without_a_network_there_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    said = (
        "checkpoint=me/nano is no folder here, and the Hugging Face hub's repository of that name cannot be had: the "
    )
    with pytest.raises(MissingAssetError, match=said):
        load_agent("me/nano")
    with pytest.raises(MissingAssetError, match="repository me/nano cannot be had"):
        PretrainedVlaser.from_pretrained("nano").push_to_hub("me/nano")


def test_a_name_that_the_hub_does_not_have_is_said(repositories: dict[str, dict[str, bytes]]) -> None:
    with pytest.raises(MissingAssetError, match=r"of that name cannot be had \(RepositoryNotFoundError"):
        load_agent("me/none")
