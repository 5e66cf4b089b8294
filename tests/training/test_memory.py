"""The arithmetic of memory beside what torch allocates."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.training import memory
from vlaser_gym.training.memory import CASES, Case, LiveBytes, Memory, accounts, policy_config, recomputed
from vlaser_gym.training.optimizers import make_optimizer
from vlaser_gym.training.trainer import trained

#: The 2B's proportions: widths an eighth, images and prompts a quarter of the tokens, a vocabulary of bytes.
SMALL = VlaserConfig.preset(
    "vlaser_2b", image_size=224, vision_width=128, vision_mlp=512, vision_layers=4, width=192, head_dim=16,
    mlp_width=1120, layers=4, expert_width=96, expert_mlp=1120, vocab_size=512, max_length=96, length_bucket=0,
    image_token_id=261, pad_id=256,
)  # fmt: skip
EXPERT = ("vision", "embedding", "language")


def allocated(run: Callable[[], None]) -> int:
    """The most bytes that torch's own allocator gave out at a time while something ran, by its profiler."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        run()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


def train(config: VlaserConfig, case: Case) -> None:
    """Two updates of two parts each, with weights that are allocated on the way."""
    agent = memory.make_agent(config, case)
    memory.materialise(agent)
    given = memory.make_batch(agent, case)
    optimizer = make_optimizer(case.optimizer, [{"params": trained(agent)}], lr=1e-3)
    for _ in range(2):
        for _ in range(2):
            memory.run_passes(agent, case, *given)
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.long
@pytest.mark.parametrize(
    "case",
    [
        Case("fp32", precision="float32"),
        Case("autocast"),
        Case("bf16 weights", weights="bfloat16"),
        Case("fp32, recomputed", precision="float32", checkpointing=memory.RECOMPUTED),
        Case("bf16 weights, recomputed", weights="bfloat16", checkpointing=memory.RECOMPUTED),
        Case("LoRA", lora=4, weights="bfloat16"),
        Case("expert", freeze=EXPERT, states=11, precision="float32"),
    ],
    ids=lambda case: case.name,
)
def test_the_arithmetic_is_what_is_allocated(case):
    """Measured by the allocator's own record; the inputs are not part of the arithmetic."""
    small = replace(case, rows=8)
    expected = accounts(SMALL, small)[0]
    found = allocated(lambda: train(SMALL, small))
    assert found == pytest.approx(expected.total, rel=0.1)
    assert expected.passes > 0.1 * found, "passes matter here"


def test_bytes_that_live_are_counted():
    before = torch.zeros(1000)
    with LiveBytes([before]) as counted:
        view = before[:10]
        a = torch.zeros(1000)
        b = a + before
        assert (counted.now, counted.peak) == (8000, 8000)
        del a
        assert counted.now == 4000
        b.add_(1)
        del b
        assert (counted.now, counted.peak) == (0, 8000)
    assert len(view) == 10


def test_weights_gradients_and_optimizer_follow_from_shapes():
    """Counted by hand for full fine-tuning, adapters and the expert alone."""
    agent = memory.make_agent(SMALL, CASES[0])
    everything = sum(p.numel() for p in agent.parameters())
    learned = sum(p.numel() for p in agent.parameters() if p.requires_grad)
    assert everything > learned > 0.8 * (everything - SMALL.vocab_size * SMALL.width) > 0
    plain = accounts(SMALL, CASES[0], held=0)[0]
    assert (plain.weights, plain.gradients, plain.optimizer) == (4 * everything, 4 * learned, 8 * learned)
    narrow = accounts(SMALL, CASES[1], held=0)[0]
    assert (narrow.weights, narrow.gradients, narrow.optimizer) == (2 * everything, 2 * learned, 12 * learned)
    assert accounts(SMALL, replace(CASES[0], average=True), held=0)[0].copies == 4 * learned
    adapters = accounts(SMALL, CASES[3], held=0)[0]
    assert adapters.optimizer == 2 * adapters.gradients
    assert adapters.gradients == adapters.weights - plain.weights
    reference = accounts(SMALL, next(case for case in CASES if case.name == "DPO of the expert"), held=0)[0]
    assert reference.copies == memory._KEPT + reference.gradients


def test_what_is_shared_is_divided_and_frozen_layers_are_not():
    for case, frozen in (
        (CASES[0], ["embed_tokens"]),
        (Case("expert", freeze=EXPERT), ["vision", "language", "projector"]),
    ):
        agent = memory.make_agent(SMALL, case)
        alone, four = accounts(SMALL, case, (1, 4), held=0)
        kept = sum(p.nbytes for name, p in agent.named_parameters() if name.split(".")[1] in frozen)
        kept += sum(p.nbytes for p in agent.policy.embed_tokens.parameters()) if case.name == "expert" else 0
        unused = sum(p.nbytes for p in agent.policy.language.norm.parameters()) if case.name == "SFT" else 0
        assert four.weights == pytest.approx(kept + unused + (alone.weights - kept - unused) / 4)
        assert (four.gradients, four.optimizer) == (alone.gradients / 4, alone.optimizer / 4)
        assert four.gathered > 0 == alone.gathered


def test_eight_billion_weights_fit_on_eight_gpus():
    """What stays between passes; docs/scaling.md has the passes too."""
    config = policy_config("vlaser_8b")
    (eight,) = accounts(config, recomputed(CASES[1]), (8,), held=0)
    (one,) = accounts(config, recomputed(CASES[1]), (1,), held=0)
    assert eight.total < 30e9
    assert one.total > 80e9


def test_names_of_policies():
    assert policy_config("vlaser_2b/3").layers == policy_config("vlaser_2b/3").vision_layers == 3
    assert policy_config("vlaser_2b").max_length == 288, "256 image tokens and an instruction, in steps of 32"
    assert policy_config("nano").max_length == VlaserConfig.preset("nano").max_length
    with pytest.raises(UnknownNameError, match="vlaser_3b"):
        policy_config("vlaser_3b")
    with pytest.raises(InvalidConfigError, match="a slash and a number of layers; got vlaser_2b/x"):
        policy_config("vlaser_2b/x")


def test_tables_tell_totals():
    row = Memory(weights=2e9, gradients=1e9, optimizer=1e9, copies=0.0, gathered=0.5e9, passes=3e9)
    table = memory.tabulate("vlaser_2b", [(recomputed(CASES[0]), [row, row])], (1, 2))
    assert [list(column.cells) for column in table.columns] == [
        *(["SFT"], ["all layers"], ["2.0"], ["1.0"], ["1.0"], ["0.0"], ["3.0"], ["7.5"], ["7.5"])
    ]
