from __future__ import annotations

import pytest
import torch

from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.densities import FlowSde
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.training import benchmark
from vlaser_gym.training.benchmark import Options, SteppedSde, prefix_bytes, shapes


def field(x, t):
    return torch.sin(3 * x) + t[..., None, None], x


def test_judging_step_by_step_is_the_same_likelihood():
    torch.manual_seed(0)
    chain, steps = torch.randn(5, 5, 4, 7, dtype=torch.float64), torch.arange(4).expand(5, -1)
    one, other = FlowSde(4).evaluate(field, chain, steps), SteppedSde(4).evaluate(field, chain, steps)
    torch.testing.assert_close(one.log_prob, other.log_prob, rtol=0, atol=1e-9)
    torch.testing.assert_close(one.entropy, other.entropy, rtol=0, atol=1e-12)


def test_smaller_shapes_have_the_2b_s_proportions():
    small, full = shapes("cpu"), VlaserConfig.preset("vlaser_2b")
    for name in ("vision_width", "width", "mlp_width", "expert_width", "expert_mlp"):
        assert getattr(full, name) == 8 * getattr(small, name)
    assert (full.layers, full.vision_layers) == (4 * small.layers, 4 * small.vision_layers)
    for name in ("num_image_tokens", "max_length", "horizon", "num_flow_steps", "heads", "kv_heads"):
        assert getattr(full, name) == getattr(small, name)


def test_memory_per_decision():
    """What is kept of a decision of a small policy, and the 2B's by the same arithmetic."""
    config = VlaserConfig.preset("nano")
    policy = VlaserPolicy.initialise(config)
    ids = torch.full((2, config.max_length), config.pad_id)
    ids[:, : config.num_image_tokens] = config.image_token_id
    with torch.no_grad():
        kept = policy.encode_vision_language(torch.zeros(2, 3, config.image_size, config.image_size), ids)
    assert kept.nbytes == 2 * prefix_bytes(config, 4)
    assert prefix_bytes(shapes("cuda"), 4) == 28 * 2 * 2 * 128 * 384 * 4 == 22_020_096


def test_without_a_gpu_it_says_so():
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(InvalidConfigError, match=r"needs a CUDA GPU and torch finds none: device=cpu"):
        Options()
    with pytest.raises(UnknownNameError, match="'keeping'"):
        Options(device="cpu", ways=["keeping"])
    with pytest.raises(UnknownNameError, match="key 'lane'"):
        benchmark.main(["lane=3"])


@pytest.mark.slow
def test_every_way_is_timed(monkeypatch, capsys):
    """On nano, where the ratio means little: all rows are there, for the expert and for adapters."""
    monkeypatch.setattr(benchmark, "shapes", lambda device: VlaserConfig.preset("nano"))
    benchmark.main(["device=cpu", "lanes=1", "n_steps=2", "micro_batch=1", "epochs=1", "ways=[kept,plain]"])
    benchmark.main(
        ["device=cpu", "lanes=1", "n_steps=2", "micro_batch=1", "epochs=1", "ways=[plain]", "trained=[lora]"]
    )
    output = " ".join(capsys.readouterr().out.split())
    assert [word in output for word in ("kept", "plain", "lora", "MB in fp32")] == [True] * 4


@pytest.mark.slow
def test_clipping_is_told_for_each_level_after_one_and_six_steps(tmp_path):
    """More steps move further; a finer level clips no more than the product over all numbers."""
    found = benchmark.measure_clipping(
        "flow_sde", ("chain", "chunk"), Options(device="cpu", lanes=16, n_steps=16), str(tmp_path)
    )
    assert [(m.density, m.level, m.steps) for m in found] == [
        ("flow_sde", level, steps) for level in ("chain", "chunk") for steps in (1, 6)
    ]
    chain, chunk = found[:2], found[2:]
    assert all(0 <= m.clipped <= 1 and m.divergence >= 0 for m in found)
    assert chain[0].clipped > chunk[0].clipped
    assert chunk[1].divergence > chunk[0].divergence > 0
    said = benchmark.clipping_table(found)
    assert said.row_count == 2
