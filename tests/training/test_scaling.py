"""What makes large policies fit changes nothing of what is learned, or as much as is said."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import fifty_steps
import numpy as np
import pytest
import sharded
import torch
from demonstrations import tiny_config, write_set
from fabricate_episodes import write_run
from scaled import build
from torch import nn

from vlaser_gym.agents.vlaser.adapters import merged_state_dict
from vlaser_gym.agents.vlaser.agent import load_agent, nano_processor
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.settings.algorithms import SftSettings
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.optimizers import MasterAdamW, make_optimizer
from vlaser_gym.training.scaling import Scaling
from vlaser_gym.training.supervised import average_decay, frozen_parts

EVERYWHERE = ("vision", "language", "expert")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_set(tmp_path_factory.mktemp("sets") / "data", 4)


@pytest.fixture
def make(data, tmp_path, monkeypatch):
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)
    return lambda name="run", **options: build(data, tmp_path / name, **options)


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.agent.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def after(steps: int):
    count = iter(range(100))
    return lambda: next(count) >= steps


# ---------------------------------------------------------------------- recomputed layers


def test_recomputed_layers_give_the_same_gradients(make):
    gradients = []
    for parts in ((), EVERYWHERE):
        trainer = make(f"run{len(parts)}", scaling={"checkpointing": parts}, config={"drop_path": 0.3})
        trainer.step_optimizer = lambda *_: None
        trainer.take_step()
        gradients.append({name: p.grad for name, p in trainer.agent.named_parameters() if p.grad is not None})
    assert same(*gradients)
    assert len(gradients[0]) > 40


@pytest.mark.parametrize("part", EVERYWHERE)
def test_the_named_part_alone_is_recomputed(make, part):
    """A layer of it runs twice in a step, those of the others once."""
    trainer = make(scaling={"checkpointing": (part,)})
    policy, runs = trainer.agent.policy, dict.fromkeys(EVERYWHERE, 0)
    firsts = {"vision": policy.vision.encoder, "language": policy.language, "expert": policy.expert}

    def counted(name):
        def hook(*_):
            runs[name] += 1

        return hook

    for name, stack in firsts.items():
        stack.layers[0].register_forward_pre_hook(counted(name))
    trainer.take_step()
    assert runs == {name: 1 + (name == part) for name in EVERYWHERE}


# ---------------------------------------------------------------------- adapters


def test_adapters_alone_are_trained_and_the_stored_policy_has_them_added_in(make, tmp_path):
    trainer = make(lora=2, ema=0.5)
    before = weights(trainer)
    assert all(".lora_" in name for name, p in trainer.agent.named_parameters() if p.requires_grad)
    assert trainer.run()
    changed = {name for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert changed
    assert all(".lora_" in name for name in changed)
    stored = load_agent(str(tmp_path / "run/checkpoint"), device="cpu").policy.state_dict()
    with trainer.whole_policy() as policy:
        assert same(dict(stored), dict(merged_state_dict(policy.policy)))
    assert not same(dict(stored), dict(merged_state_dict(trainer.agent.policy))), "the average is stored"


def test_an_expert_of_random_weights_learns_whole_beside_adapters(make):
    trainer = make(lora=2, whole=["expert"], freeze=["vision", "embedding"])
    found = {
        name.split(".")[1] for name, p in trainer.agent.named_parameters() if p.requires_grad and "lora" not in name
    }
    assert found == {"expert", "action_encoder", "proprio_encoder", "action_decoder"}
    adapted = {name.split(".")[1] for name, p in trainer.agent.named_parameters() if "lora" in name}
    assert adapted == {"language"}


@pytest.mark.parametrize(
    "changes",
    [
        {"lora": 2},
        {"scaling": {"weights": "bfloat16"}},
        {"lora": 2, "whole": ["expert"], "scaling": {"weights": "bfloat16", "checkpointing": EVERYWHERE}},
    ],
    ids=str,
)
def test_a_continued_run_ends_with_the_same_bits(make, changes):
    whole = make("whole", **changes)
    assert whole.run()
    assert not make("parts", **changes).run(after(3))
    second = make("parts", **changes)
    assert second.done == 3
    assert second.run()
    assert same(weights(whole), weights(second))
    assert same(whole.average.values, second.average.values)


# ---------------------------------------------------------------------- narrow weights


def test_narrow_weights_follow_adam_of_fp32_copies():
    """Stepped here by the definition of AdamW, on fp32 copies that are rounded each time."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 3).bfloat16())
    optimizer = make_optimizer("adamw", [{"params": [weight]}], lr=1e-3, betas=(0.9, 0.99), weight_decay=0.1)
    assert isinstance(optimizer, MasterAdamW)
    copy, first, second = weight.detach().double(), torch.zeros(5, 3).double(), torch.zeros(5, 3).double()
    for step in range(1, 6):
        gradient = torch.randn(5, 3).bfloat16()
        weight.grad = gradient.clone()
        optimizer.step()
        assert weight.grad is None
        g = gradient.double()
        first, second = 0.9 * first + 0.1 * g, 0.99 * second + 0.01 * g * g
        copy = copy * (1 - 1e-3 * 0.1)
        copy -= 1e-3 * (first / (1 - 0.9**step)) / ((second / (1 - 0.99**step)).sqrt() + 1e-8)
        torch.testing.assert_close(weight.detach().double(), copy, rtol=2**-8, atol=0)
    ((_, ours),) = optimizer.pairs
    torch.testing.assert_close(ours.detach().double(), copy, rtol=1e-6, atol=1e-7)


def test_steps_too_small_for_narrow_weights_add_up():
    weight = nn.Parameter(torch.ones(4).bfloat16())
    optimizer = make_optimizer("adamw", [{"params": [weight]}], lr=1e-4, weight_decay=0.0)
    for _ in range(100):
        weight.grad = torch.ones(4).bfloat16()
        optimizer.step()
    assert weight.detach().float() == pytest.approx(0.99, abs=2**-9), "a single step is 1/40 of a bit"


def test_adapters_on_narrow_weights_are_fp32(make):
    trainer = make(lora=2, scaling={"weights": "bfloat16"})
    found = {(p.dtype, ".lora_" in name) for name, p in trainer.agent.named_parameters()}
    assert found == {(torch.bfloat16, False), (torch.float32, True)}
    trainer.take_step()


def test_another_type_of_weights_or_optimizer_is_refused(make):
    make(scaling={"weights": "bfloat16"}).save()
    with pytest.raises(InvalidConfigError, match=r"was trained with weights=bfloat16, .* not weights=float32, or"):
        make()


def test_missing_packages_are_one_sentence(monkeypatch):
    for name in ("torchao", "torchao.optim", "bitsandbytes", "bitsandbytes.optim"):
        monkeypatch.setitem(sys.modules, name, None)
    groups = [{"params": [nn.Parameter(torch.zeros(3))]}]
    with pytest.raises(
        InvalidConfigError, match=r"adamw_8bit needs the package torchao, .* pip install 'vlaser-gym\[gpu"
    ):
        make_optimizer("adamw_8bit", groups)
    with pytest.raises(InvalidConfigError, match="bitsandbytes needs a CUDA GPU"):
        make_optimizer("bitsandbytes", groups)
    with pytest.raises(InvalidConfigError, match="knows no weights that processes share"):
        make_optimizer("bitsandbytes", groups, sharded=True)


# ---------------------------------------------------------------------- losses over fifty steps


@pytest.fixture(scope="module", params=["toy", pytest.param("nano", marks=pytest.mark.long)])
def plain_losses(request, data, tmp_path_factory) -> tuple[str, np.ndarray]:
    policy = request.param
    return policy, fifty_steps.losses(policy, data, tmp_path_factory.mktemp("plain"), fifty_steps.PLAIN)


@pytest.mark.parametrize("name", fifty_steps.WAYS)
def test_losses_stay_near_those_of_plain_fine_tuning(data, tmp_path, plain_losses, name):
    (policy, plain), way = plain_losses, fifty_steps.WAYS[name]
    found = fifty_steps.losses(policy, data, tmp_path, way)
    each, end = fifty_steps.differences(found, plain)
    assert each <= way.each
    assert end <= way.end
    assert found[-10:].mean() < 0.8 * found[:3].mean(), "it learns"


# ---------------------------------------------------------------------- what is there by default


def test_released_sizes_are_trained_as_their_authors_did():
    """Without the token embedding, and without a second copy of the weights."""
    settings = SftSettings()
    for preset, frozen, decay in (
        ("vlaser_2b", ("embedding",), 0.0),
        ("vlaser_8b", ("embedding",), 0.0),
        ("nano", (), 0.999),
    ):
        config = VlaserConfig.preset(preset, image_token_id=261, pad_id=256)
        agent = TrainableVlaser(VlaserPolicy.on_meta(config), nano_processor(config))
        assert (frozen_parts(agent, settings), average_decay(agent, settings)) == (frozen, decay)
    assert frozen_parts(agent, SftSettings(freeze=["vision"])) == ["vision"]
    assert average_decay(agent, SftSettings(ema=0.5)) == 0.5


def test_without_an_average_nothing_is_copied_and_the_weights_are_stored(make, tmp_path):
    trainer = make(ema=0.0)
    assert trainer.average is None
    assert trainer.run()
    stored = load_agent(str(tmp_path / "run/checkpoint"), device="cpu").policy.state_dict()
    assert same(dict(stored), dict(trainer.agent.policy.state_dict()))
    assert trainer.agent.training, "dropout goes on after the policy was stored"


def test_averages_of_before_are_read(make, tmp_path):
    """Then all weights of the policy were stored, in the first edition without the agent's prefix."""
    trainer = make(freeze=["vision"])
    trainer.run(after(3))
    expected = {name: value.clone() for name, value in trainer.average.values.items()}
    file = tmp_path / "run/trainer.pt"
    state = torch.load(file, weights_only=True)
    for prefix in ("policy.", ""):
        whole = {name.removeprefix("policy."): value for name, value in trainer.agent.state_dict().items()}
        whole |= {name.removeprefix("policy."): value for name, value in expected.items()}
        stored = {f"{prefix}{name}": value for name, value in whole.items()}
        old = {name: value for name, value in state.items() if name != "scaling"}
        torch.save({**old, "average": stored}, file)
        assert same(make(freeze=["vision"]).average.values, expected)


def test_frozen_weights_are_shared_with_copies():
    """A reference of the expert takes the expert's memory, not the policy's."""
    config = tiny_config()
    agent = TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config))
    agent.freeze("vision", "embedding", "language")
    copied = agent.frozen_copy()
    trained = {name for name, p in agent.named_parameters() if p.requires_grad}
    for (name, ours), (_, theirs) in zip(agent.named_parameters(), copied.named_parameters(), strict=True):
        assert (ours.data_ptr() == theirs.data_ptr()) == (name not in trained), name
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("frozen", [(), ("vision", "embedding", "language")])
def test_prompts_are_cut_behind_the_longest_and_nothing_changes(frozen):
    config = tiny_config(max_length=48, length_bucket=4)
    agent = TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config))
    agent.freeze(*frozen)
    told = agent.transform({"instruction": ["stack", "stack the cubes"]})
    ids = torch.from_numpy(told["input_ids"])
    pixels = torch.randint(256, (2, 24, 24, 3), dtype=torch.uint8)
    inputs = {"pixels": pixels, "input_ids": ids, "proprio": torch.zeros(2, 7)}
    longest = int((ids != config.pad_id).sum(1).max())
    assert longest < 44, "there is something to cut"
    lengths, draws = [], {"noise": torch.randn(2, 3, 4, 7), "t": torch.rand(2, 3)}
    agent.policy.language.layers[0].register_forward_pre_hook(lambda _, args: lengths.append(args[0].shape[1]))
    encoding = agent.encode(inputs)
    assert lengths == [-(-longest // 4) * 4]
    assert encoding.length == (48 if frozen else lengths[0]), "what may be kept has one length"
    uncut = agent.policy.config
    agent.policy.config = uncut.replace(length_bucket=0)
    whole = agent.encode(inputs)
    chunk = torch.zeros(2, 4, 7)
    found, expected = (agent.velocities(part, inputs, chunk, draws)[0] for part in (encoding, whole))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_one_process_has_nobody_to_share_with(make):
    with pytest.raises(
        InvalidConfigError, match="shares weights out among the processes that torchrun starts; there is"
    ):
        make(scaling={"shard": True})


# ---------------------------------------------------------------------- several processes


def start(
    algo: str, path: Path, processes: int, steps: int = 1000, *, scaling=None, dies_after=None, **changes
) -> list[dict]:
    """Train in so many processes; the weights that each of them ends with."""
    # Imported once, and not by each of the processes.
    import torch.distributed.device_mesh
    import torch.distributed.fsdp
    import torch.distributed.tensor

    def work() -> None:
        sharded.train(algo, path, steps, scaling or {}, changes, dies_after)

    sharded.fork_all(processes, work, path / "log.txt")
    return [torch.load(path / f"found-{rank}.pt", weights_only=True) for rank in range(processes)]


def start_by_torchrun(path: Path, **scaling) -> None:
    """Train supervised in two processes, as on the command line."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    script = [str(Path(__file__).parent / "sharded.py"), "sft", str(path), "1000", json.dumps(scaling), "{}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, *script], env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stderr[-4000:]


def furthest(one: dict, other: dict) -> float:
    assert one.keys() == other.keys()
    return max(float((one[name].float() - other[name].float()).abs().max()) for name in one)


@pytest.fixture
def folder(data, tmp_path):
    """A fresh folder with the data in it."""
    numbers = itertools.count()

    def fresh() -> Path:
        path = tmp_path / str(next(numbers))
        path.mkdir()
        shutil.copytree(data, path / "data")
        return path

    return fresh


@pytest.mark.long
@pytest.mark.parametrize(
    ("scaling", "changes"),
    [
        ({}, {}),
        ({"checkpointing": EVERYWHERE}, {"freeze": ["vision", "embedding"], "accumulate": 2}),
    ],
    ids=str,
)
def test_shared_weights_end_as_those_of_one_process(folder, scaling, changes):
    """Rows are added up in another order: fp32 rounds by 6e-8."""
    (one,) = start("sft", folder(), 1, scaling=scaling, **changes)
    two = start("sft", folder(), 2, scaling={**scaling, "shard": True}, **changes)
    (begun,) = start("sft", folder(), 1, 0, scaling=scaling, **changes)
    assert furthest(one, begun) > 3e-3
    assert furthest(*two) == 0
    assert furthest(one, two[0]) <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("changes", [{}, {"lora": 2, "whole": ["expert"]}], ids=str)
def test_narrow_shared_weights_end_as_those_of_one_process(folder, changes):
    """Adapters, and heads beside the policy, stay fp32: weights of two types are shared out.

    The single process takes each step in two parts, as the two processes do: gradients of the same rows are rounded to
    bf16, and so is their sum. Nothing is clipped: a norm of gradients in bf16 is rounded by 2^-9, of parts or of all.
    """
    scaling, changes = {"weights": "bfloat16"}, {**changes, "clip": 1e9}
    (one,) = start("sft", folder(), 1, scaling=scaling, accumulate=2, **changes)
    two = start("sft", folder(), 2, scaling={**scaling, "shard": True}, **changes)
    (begun,) = start("sft", folder(), 1, 0, scaling=scaling, **changes)
    assert furthest(one, begun) > 3e-3
    assert furthest(*two) == 0
    assert furthest(one, two[0]) == 0


@pytest.mark.long
def test_torchrun_starts_what_is_tested_here(folder):
    path = folder()
    start_by_torchrun(path, shard=True)
    found = [torch.load(path / f"found-{rank}.pt", weights_only=True) for rank in range(2)]
    two = start("sft", folder(), 2, scaling={"shard": True})
    assert furthest(found[0], two[0]) == furthest(*found) == 0


@pytest.mark.long
def test_a_shared_run_goes_on_with_another_number_of_processes(folder):
    """Stopped after 2 steps of two processes and 2 of one; the rest by two again that do not share."""
    (one,) = start("sft", folder(), 1)
    path = folder()
    start("sft", path, 2, 2, scaling={"shard": True})
    assert torch.load(path / "run/trainer.pt", weights_only=True)["step"] == 2
    start("sft", path, 1, 2)
    assert torch.load(path / "run/trainer.pt", weights_only=True)["step"] == 4
    two = start("sft", path, 2)
    assert furthest(one, two[0]) <= 1e-5
    policy = load_agent(str(path / "run/checkpoint"), device="cpu").policy.state_dict()
    assert set(policy) == {name.removeprefix("policy.") for name in one}


@pytest.mark.long
@pytest.mark.parametrize("processes", [2, 1])
def test_a_killed_shared_run_goes_on(processes, folder):
    """SIGKILL takes both processes after three steps; two are stored. As many go on, or one that has all weights."""
    (one,) = start("sft", folder(), 1)
    path = folder()
    with pytest.raises(AssertionError):
        start("sft", path, 2, scaling={"shard": True}, save_every=2, dies_after=3)
    assert torch.load(path / "run/trainer.pt", weights_only=True)["step"] == 2
    last = start("sft", path, processes, scaling={"shard": processes > 1})
    assert furthest(one, last[0]) <= 1e-5


ROUNDS = {
    "dpo": {"loss": "flow_dpo", "density": None, "batch_size": 4, "micro_batch": 2, "epochs": 2},
    "nft": {"batch_size": 4, "micro_batch": 2, "epochs": 2},
}
ACTING = {
    "ppo": {"n_steps": 4, "batch_size": 8, "target_kl": 0.5, "learning_rate": 1e-4},
    "grpo": {"learning_rate": 1e-4},
}


@pytest.mark.long
@pytest.mark.parametrize("shard", [False, True])
@pytest.mark.parametrize("algo", ROUNDS)
def test_rounds_on_two_processes_are_those_of_one(algo, shard, tmp_path):
    module = importlib.import_module(f"test_{algo}")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name / "data", module.OUTCOMES, tiny_config(), density=None)
    (one,) = start(algo, tmp_path / "one", 1, freeze=[], **ROUNDS[algo])
    two = start(algo, tmp_path / "two", 2, freeze=[], scaling={"shard": shard}, **ROUNDS[algo])
    shutil.rmtree(tmp_path / "one/run")
    (begun,) = start(algo, tmp_path / "one", 1, 0, freeze=[], **ROUNDS[algo])
    assert furthest(one, begun) > 1e-4
    assert furthest(*two) == 0
    assert furthest(one, two[0]) <= 1e-5


@pytest.mark.long
@pytest.mark.parametrize("algo", ROUNDS)
def test_a_shared_round_goes_on_with_another_number_of_processes(algo, tmp_path):
    """One step of two processes that share, the rest of one."""
    module = importlib.import_module(f"test_{algo}")
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_run(tmp_path / name / "data", module.OUTCOMES, tiny_config(), density=None)
    (one,) = start(algo, tmp_path / "one", 1, freeze=[], **ROUNDS[algo])
    start(algo, tmp_path / "two", 2, 1, freeze=[], scaling={"shard": True}, **ROUNDS[algo])
    assert torch.load(tmp_path / "two/run/trainer.pt", weights_only=True)["total"] == 1
    (mixed,) = start(algo, tmp_path / "two", 1, freeze=[], **ROUNDS[algo])
    assert furthest(one, mixed) <= 1e-5


@pytest.mark.parametrize("algo", ACTING)
def test_who_acts_goes_on_with_as_many_processes(algo, tmp_path, monkeypatch):
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)
    make = importlib.import_module(f"test_{algo}").make
    make(tmp_path, envs=6).run(after(1))
    with pytest.raises(InvalidConfigError, match=r"by 1 process, each with episodes that go on: .* as many, not 2"):
        make(tmp_path, envs=6, group=ProcessGroup(0, 2))


@pytest.mark.parametrize("shard", [False, True])
def test_gradients_of_what_is_not_shared_are_sums_over_the_processes(make, shard):
    """Such as the critic's: two equal processes stand in for two."""

    class Twins(ProcessGroup):
        def sum_gradients(self, parameters):
            for parameter in parameters:
                parameter.grad *= 2

    trainer, weight = make(), nn.Parameter(torch.ones(3))
    trainer.group, trainer.scaling = Twins(0, 2), Scaling(shard=shard)
    trainer.summed(5 * weight.sum()).backward()
    trainer.sum_gradients([weight])
    assert weight.grad.tolist() == [10.0] * 3


@pytest.mark.long
@pytest.mark.parametrize("changes", [{}, {"freeze": ["vision"], "lora": 2}], ids=str)
@pytest.mark.parametrize("algo", ACTING)
def test_acting_learners_share_weights(algo, changes, folder):
    """Processes run unequally many passes while they act, and have unequal shares of a minibatch."""
    (one,) = start(algo, folder(), 1, **ACTING[algo], **changes)
    two = start(algo, folder(), 2, scaling={"shard": True}, **ACTING[algo], **changes)
    assert furthest(*two) == 0
    assert furthest(one, two[0]) <= 1e-5
