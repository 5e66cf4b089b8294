from __future__ import annotations

from datetime import timedelta

import pytest
import torch
from torch import distributed

from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.cli import load, typed
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.distributed import ProcessGroup, joined_processes, own_device
from vlaser_gym.training.job import initial_policy


@pytest.fixture
def second_of_four(monkeypatch):
    for name, value in (("WORLD_SIZE", "4"), ("RANK", "1"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)


def test_each_process_has_a_gpu_of_its_own(second_of_four, monkeypatch):
    assert own_device("cuda") == own_device("cuda:0") == "cuda:1"
    assert own_device("cpu") == "cpu"
    devices = []

    def load_policy(*_, device, **options):
        devices.append(device)
        raise InterruptedError

    monkeypatch.setattr("vlaser_gym.training.job.load_policy", load_policy)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    with pytest.raises(InterruptedError):
        initial_policy(typed(TrainSettings, load("train", ["device=cuda:0"])), str(SHIPPED / "nano"))
    assert devices == ["cuda:1"]


def test_alone_the_device_is_the_one_that_was_named(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert own_device("cuda:3") == "cuda:3"


def test_processes_wait_for_hours(second_of_four, monkeypatch):
    """The first decodes a data set, or evaluates, and the others stand at a barrier."""
    asked = []
    monkeypatch.setattr(distributed, "init_process_group", lambda backend, **options: asked.append((backend, options)))
    monkeypatch.setattr(distributed, "get_rank", lambda: 1)
    monkeypatch.setattr(distributed, "destroy_process_group", lambda: None)
    monkeypatch.setattr(torch.cuda, "set_device", asked.append)
    with joined_processes("cuda:0") as group:
        assert group == ProcessGroup(1, 4)
    device, (backend, options) = asked
    assert (device, backend) == ("cuda:1", "nccl")
    assert options["timeout"] >= timedelta(hours=6)
