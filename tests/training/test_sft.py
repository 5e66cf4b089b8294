from __future__ import annotations

import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from demonstrations import SIZE, TINY, tiny_config, write_set
from fabricate_vlm import SPECIAL_IDS, write_vlm

from vlaser_gym import cli
from vlaser_gym.agents.vlaser.agent import load_agent, nano_processor
from vlaser_gym.agents.vlaser.checkpoint import CheckpointError, save_pretrained
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.processor import ResizeImage, normalize_pixels
from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.agents.vlaser.statistics import Statistics
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.commands.train import main
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import DivergedError, InvalidConfigError, MissingAssetError, StorageError, UnknownNameError
from vlaser_gym.evaluation.lerobot import LeRobotReader
from vlaser_gym.settings.algorithms import SftSettings
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training.data.demonstrations import Batches, Demonstrations
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.job import initial_policy
from vlaser_gym.training.metrics import read_metrics
from vlaser_gym.training.sft import ImitationLoss, SupervisedFineTuning
from vlaser_gym.training.trainer import RunOptions

SETTINGS = SftSettings(
    name="sft",
    steps=6,
    batch_size=8,
    accumulate=1,
    learning_rate=3e-3,
    expert_learning_rate=3e-3,
    weight_decay=0.01,
    betas=(0.9, 0.99),
    warmup=2,
    final_rate=0.1,
    clip=1.0,
    ema=0.9,
    flow_samples=2,
    places=0.5,
    freeze=[],
    augment="colour",
    precision="float32",
)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return write_set(tmp_path_factory.mktemp("sets") / "set", 4)


def read(path) -> Demonstrations:
    return Demonstrations([LeRobotReader(path)], "widowx", 4, ResizeImage(SIZE, "area"))


def build(data, path, group=None, config=None, evaluate=None, evaluate_every=0, **changes) -> SupervisedFineTuning:
    settings = dataclasses.replace(SETTINGS, **changes)
    processor = nano_processor(tiny_config(), data.statistics())
    policy = VlaserPolicy.initialise(config or tiny_config(), seed=1)
    agent = TrainableVlaser(policy, processor, None, settings.places, seed=5, named_places=settings.named_places)
    options = RunOptions(5, group or ProcessGroup(), 3, 2, evaluate, evaluate_every)
    return SupervisedFineTuning(agent, Batches(data, agent, seed=5), settings, path, options)


@pytest.fixture(scope="module")
def data(path):
    return read(path)


@pytest.fixture
def make(data, tmp_path):
    torch.set_num_threads(1)  # an agent that is loaded in between sets it too, and sums depend on it
    return lambda name="run", **options: build(data, tmp_path / name, **options)


def spoil(trainer: SupervisedFineTuning, step: int) -> None:
    """The noise of one step is not a number."""
    micro_batches = trainer.micro_batches

    def spoiled():
        factor = math.nan if trainer.done == step else 1.0
        return [(batch, {**draws, "noise": factor * draws["noise"]}, *more) for batch, draws, *more in micro_batches()]

    trainer.micro_batches = spoiled


def weights(trainer: SupervisedFineTuning) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in trainer.agent.state_dict().items()}


def after(steps: int):
    """Says when so many steps were taken."""
    count = iter(range(100))
    return lambda: next(count) >= steps


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def agent_of(data, places: float = 0.0) -> TrainableVlaser:
    policy = VlaserPolicy.initialise(tiny_config(), seed=2)
    return TrainableVlaser(policy, nano_processor(tiny_config(), data.statistics()), None, places)


def test_the_loss_is_the_policys_own(data):
    """With one noise per row it is ``VlaserPolicy.flow_loss``, with K its mean over the K."""
    agent = agent_of(data)
    batch = Batches(data, agent, 0).batch(np.arange(6))
    generator = torch.Generator().manual_seed(0)
    noise, t = torch.randn(6, 3, 4, 7, generator=generator), torch.rand(6, 3, generator=generator)
    loss, terms = ImitationLoss(agent)(batch, {"noise": noise, "t": t})
    inputs = {**batch, "pixel_values": normalize_pixels(batch["pixels"])}
    expected = torch.stack([agent.policy.flow_loss(inputs, noise[:, k], t[:, k]) for k in range(3)]).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(terms["imitation"], expected.detach())


def test_the_places_are_a_second_loss_from_the_image_features(data):
    agent = agent_of(data, places=0.5)
    batch = Batches(data, agent, 0).batch(np.arange(6))
    loss, terms = ImitationLoss(agent)(batch, {"noise": torch.zeros(6, 1, 4, 7), "t": torch.zeros(6, 1)})
    features = agent.policy.image_features(normalize_pixels(batch["pixels"])).flatten(1)
    expected = (agent.places(features) - batch["places"]).square().mean()
    torch.testing.assert_close(terms["places"], 0.5 * expected.detach())
    torch.testing.assert_close(loss.detach(), terms["imitation"] + terms["places"])


def test_the_named_places_are_a_loss_from_what_the_action_expert_reads(data):
    """By hand from the last layer's keys and values at the image tokens; another instruction reads otherwise there."""
    policy = VlaserPolicy.initialise(tiny_config(), seed=2)
    agent = TrainableVlaser(policy, nano_processor(tiny_config(), data.statistics()), named_places=0.5)
    batch = Batches(data, agent, 0).batch(np.arange(6))
    loss, terms = ImitationLoss(agent)(batch, {"noise": torch.zeros(6, 1, 4, 7), "t": torch.zeros(6, 1)})

    def read(ids: torch.Tensor) -> torch.Tensor:
        encoding = agent.policy.encode_vision_language(normalize_pixels(batch["pixels"]), ids)
        keys, values = (tensor.transpose(1, 2) for tensor in encoding.cache[-1])
        rows = [
            [torch.cat([part[row, place].flatten() for part in (keys, values)]) for place in np.flatnonzero(is_image)]
            for row, is_image in enumerate((ids == agent.policy.config.image_token_id).numpy())
        ]
        return torch.stack([torch.cat(row) for row in rows])

    expected = (agent.named_places(read(batch["input_ids"])) - batch["places"]).square().mean()
    torch.testing.assert_close(terms["named_places"], 0.5 * expected.detach())
    torch.testing.assert_close(loss.detach(), terms["imitation"] + terms["named_places"])
    other = agent.processor.prompt({"instruction": ["close the drawer"] * 6})["input_ids"]
    assert not torch.allclose(read(batch["input_ids"]), read(torch.from_numpy(other)))
    agent.encode(batch)
    agent.auxiliary_losses(batch)["named_places"].backward()
    words = set(batch["input_ids"][0].tolist()) - {agent.pad_id, policy.config.image_token_id}
    assert policy.embed_tokens.weight.grad[list(words)].abs().sum(1).min() > 0


def test_all_that_the_loss_gives_is_on_the_policys_device(data):
    """The meta device stands in for a GPU: a tensor of the CPU could not be stacked with the others."""
    policy = VlaserPolicy.on_meta(tiny_config())
    agent = TrainableVlaser(policy, nano_processor(tiny_config(), data.statistics()))
    batch = {
        "pixels": torch.zeros(2, SIZE, SIZE, 3, dtype=torch.uint8),
        "input_ids": torch.zeros(2, policy.config.max_length, dtype=torch.long),
        "proprio": torch.zeros(2, policy.config.proprio_dim),
        "actions": torch.zeros(2, 4, 7),
    }
    loss, terms = ImitationLoss(agent)(batch, {"noise": torch.zeros(2, 1, 4, 7), "t": torch.zeros(2, 1)})
    assert {value.device.type for value in (loss, *terms.values())} == {"meta"}


def test_the_first_process_says_when_the_time_is_up(make):
    """A process with its own clock would stop alone, and the others would wait for it."""

    class Follower(ProcessGroup):
        def broadcast(self, value):
            return False

    trainer = make(group=Follower())
    assert trainer.run(stop=lambda: True)


def test_a_continued_run_ends_with_the_same_bits(make):
    whole = make("whole")
    assert whole.run()
    first = make("parts")
    assert not first.run(after(3))
    second = make("parts")
    assert second.done == 3
    assert second.run()
    assert same(weights(whole), weights(second))
    assert same(whole.average.values, second.average.values)
    moments = [state["exp_avg_sq"] for state in whole.optimizer.state.values()]
    assert all(
        torch.equal(a, state["exp_avg_sq"]) for a, state in zip(moments, second.optimizer.state.values(), strict=True)
    )


def test_stochastic_depth_goes_on_with_the_same_bits_too(make):
    config = tiny_config(drop_path=0.5, vision_layers=3)
    whole = make("whole", config=config)
    plain = make("plain", config=tiny_config(vision_layers=3))
    before = torch.get_rng_state()
    assert whole.take_step()["imitation"] != plain.take_step()["imitation"], "something is left out"
    assert torch.equal(torch.get_rng_state(), before)
    assert whole.run()
    make("parts", config=config).run(after(3))
    torch.rand(5)  # a new process's global stream stands elsewhere
    second = make("parts", config=config)
    assert second.run()
    assert same(weights(whole), weights(second))


def test_a_failing_evaluation_costs_no_training_and_is_made_up_for(make, tmp_path):
    def fail(policy):
        raise StorageError("no images here")

    with pytest.raises(StorageError, match="no images"):
        make(evaluate=fail, evaluate_every=2).run()
    scored = []

    def score(policy):
        scored.append(trainer.done)
        return {"success/mean": 0.5}

    for _ in range(2):
        trainer = make(evaluate=score, evaluate_every=2)
        assert trainer.done == (6 if scored else 2)
        assert trainer.run()
    assert scored == [2, 4, 6]
    rows = read_metrics(tmp_path / "run/metrics.jsonl")
    assert [row["step"] for row in rows if "success/mean" in row] == [2, 4, 6]


def test_a_continued_run_has_the_settings_of_now(make):
    make().run(after(3))
    second = make(weight_decay=0.3, betas=(0.8, 0.95), learning_rate=1e-4)
    assert {group["weight_decay"] for group in second.optimizer.param_groups} == {0.0, 0.3}
    assert {tuple(group["betas"]) for group in second.optimizer.param_groups} == {(0.8, 0.95)}
    assert second.optimizer.param_groups[0]["peak"] == 1e-4
    for changes in ({"freeze": ["vision"]}, {"places": 0.0}, {"named_places": 0.5}):
        with pytest.raises(InvalidConfigError, match=r"same algo\.freeze, .*algo\.places and algo\.named_places"):
            make(**changes)


def test_a_step_that_is_not_finite_changes_nothing_and_the_checkpoint_stays(make, tmp_path):
    whole, first = make("whole"), make()
    whole.run()
    spoil(first, step=4)
    match = (
        rf"^Training diverged: the loss of step 5 is nan, .*; lower algo\.learning_rate and algo\.expert_learning_rate "
        rf"and resume from the last checkpoint with run={tmp_path / 'run'}\.$"
    )
    before: dict[str, torch.Tensor] = {}
    take_step = first.take_step
    first.take_step = lambda: (before.update(weights(first)), take_step())[1]
    with pytest.raises(DivergedError, match=match):
        first.run()
    assert same(before, weights(first))
    assert first.done == 4
    assert load_agent(str(tmp_path / "run/checkpoint"), device="cpu")
    second = make()
    assert second.done == 3
    assert second.run()
    assert same(weights(whole), weights(second))


def test_a_learning_rate_that_is_too_high_is_said(make, tmp_path):
    trainer = make(learning_rate=1e37, expert_learning_rate=1e37, warmup=0)
    with pytest.raises(DivergedError, match=r"^Training diverged: the (loss|gradient norm) of step 2 is (nan|inf)"):
        trainer.run()
    assert all(value.isfinite().all() for value in weights(trainer).values())
    assert not (tmp_path / "run/trainer.pt").exists()


def test_a_cut_state_is_one_sentence(make, tmp_path):
    make().save()
    file = tmp_path / "run/trainer.pt"
    for size in (file.stat().st_size // 2, 0):
        file.write_bytes(file.read_bytes()[:size])
        with pytest.raises(StorageError, match=r"trainer\.pt should hold the state .* put back") as caught:
            make()
        assert "\n" not in str(caught.value)


def test_the_rates_that_are_logged_are_those_of_the_step(make, tmp_path):
    trainer = make(expert_learning_rate=1e-3)
    rates = []
    take_step = trainer.take_step
    trainer.take_step = lambda: (take_step(), rates.append([g["lr"] for g in trainer.optimizer.param_groups]))[0]
    trainer.run()
    for row in read_metrics(tmp_path / "run/metrics.jsonl"):
        lr = rates[row["step"] - 1]
        assert [row["learning_rate"], row["expert_learning_rate"]] == pytest.approx([lr[0], lr[-1]])


def test_parts_of_a_batch_add_up_to_the_batch(make):
    whole, parts = make("whole"), make("parts", accumulate=4)
    whole.take_step()
    parts.take_step()
    for (name, a), b in zip(weights(whole).items(), weights(parts).values(), strict=True):
        torch.testing.assert_close(a, b, atol=2e-5, rtol=1e-4, msg=name)


def test_learning_lowers_the_loss(make):
    trainer = make(steps=60, learning_rate=1e-2, expert_learning_rate=1e-2, augment="none")
    losses = [trainer.take_step() for _ in range(60)]
    for name, share in (("imitation", 0.7), ("places", 0.5)):
        first, last = (float(sum(row[name] for row in rows)) for rows in (losses[:10], losses[-10:]))
        assert last < share * first, name


def test_the_learning_rate_warms_up_and_follows_a_cosine(make):
    trainer = make(steps=10, warmup=4)
    assert [trainer.rate(step) for step in range(4)] == [0.25, 0.5, 0.75, 1.0]
    for step in range(4, 11):
        expected = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * (step - 4) / 6))
        assert trainer.rate(step) == pytest.approx(expected)
    assert trainer.rate(10) == pytest.approx(0.1)


def test_stored_weights_are_an_average_over_the_steps(make):
    trainer = make(ema=0.5)
    name = "action_decoder.weight"
    expected = trainer.agent.policy.state_dict()[name].clone()
    for step in range(1, 4):
        trainer.take_step()
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * trainer.agent.policy.state_dict()[name]
    torch.testing.assert_close(trainer.average.values[f"policy.{name}"], expected)


def test_groups_have_their_own_rates_and_frozen_parts_stay(make):
    trainer = make(freeze=["vision"], expert_learning_rate=0.0, weight_decay=0.0, warmup=1)
    before = weights(trainer)
    trainer.take_step()
    changed = {name.split(".")[1] for name, value in weights(trainer).items() if not torch.equal(value, before[name])}
    assert changed == {"language", "embed_tokens"}


def test_bf16_products_train_fp32_weights(make):
    trainer = make(precision="bfloat16")
    exact = make("exact")
    assert trainer.agent.policy.dtype == torch.float32
    got, expected = trainer.take_step()["imitation"], exact.take_step()["imitation"]
    assert got != expected
    assert got == pytest.approx(float(expected), rel=0.03)


def test_a_run_leaves_a_policy_numbers_and_curves(make, tmp_path):
    trainer = make()
    trainer.run()
    run = tmp_path / "run"
    agent = load_agent(str(run / "checkpoint"), device="cpu")
    with trainer.whole_policy() as stored:
        assert same(dict(agent.policy.state_dict()), dict(stored.policy.state_dict()))
    assert not same(dict(agent.policy.state_dict()), dict(trainer.agent.policy.state_dict()))
    assert agent.processor.statistics == trainer.agent.processor.statistics
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == [2, 4, 6]
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard")).Reload()
    assert [e.step for e in events.Scalars("loss/imitation")] == [2, 4, 6]


def test_wrong_settings_are_named(make):
    with pytest.raises(InvalidConfigError, match="accumulate"):
        dataclasses.replace(SETTINGS, accumulate=3)
    with pytest.raises(UnknownNameError, match="float32"):
        dataclasses.replace(SETTINGS, precision="fp8")
    with pytest.raises(UnknownNameError, match="eyes"):
        make(freeze=["eyes"])


# --- whole commands


def command(path, run, *more: str) -> list[str]:
    settings = [f"settings.{name}={value}" for name, value in TINY.items()]
    return [
        *("-m", "vlaser_gym.train", f"data={path}", f"run={run}", "evaluate_episodes=0", "threads=1", "device=cpu"),
        *("algo.batch_size=8", "algo.warmup=2", "algo.places=0.5", "log_every=5", *settings, *more),
    ]


def trained(run) -> dict[str, torch.Tensor]:
    return torch.load(run / "trainer.pt", weights_only=True)["module"]


@pytest.mark.slow
def test_killed_and_continued_gives_the_same_parameters(path, tmp_path):
    arguments = ("algo.steps=400", "save_every=20")
    subprocess.run([sys.executable, *command(path, tmp_path / "whole", *arguments)], check=True, timeout=280)
    process = subprocess.Popen([sys.executable, *command(path, tmp_path / "killed", *arguments)])
    state = tmp_path / "killed" / "trainer.pt"
    deadline = time.monotonic() + 100
    while not state.is_file() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    step = torch.load(state, weights_only=True)["step"]
    assert 0 < step < 400
    subprocess.run([sys.executable, *command(path, tmp_path / "killed", *arguments)], check=True, timeout=280)
    assert same(trained(tmp_path / "whole"), trained(tmp_path / "killed"))


@pytest.mark.slow
def test_two_processes_match_one(path, tmp_path):
    arguments = ("algo.steps=10", "algo.accumulate=1")
    subprocess.run([sys.executable, *command(path, tmp_path / "one", *arguments)], check=True, timeout=280)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*launcher, *command(path, tmp_path / "two", *arguments)], check=True, timeout=280)
    one, two = trained(tmp_path / "one"), trained(tmp_path / "two")
    start = VlaserPolicy.initialise(tiny_config()).state_dict()["action_decoder.weight"]
    assert (one["policy.action_decoder.weight"] - start).abs().max() > 1e-3
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-4, rtol=1e-3, msg=name)


@pytest.mark.long
def test_several_initialisations_are_tabulated(path, tmp_path):
    first = command(path, tmp_path / "first", "algo.steps=5")
    subprocess.run([sys.executable, *first], check=True, timeout=280)
    several = command(path, tmp_path / "all", "algo.steps=5", f"init=[random:nano,{tmp_path}/first/checkpoint]")
    done = subprocess.run([sys.executable, *several], check=True, timeout=280, capture_output=True, text=True)
    assert "loss/imitation" in done.stdout
    assert (tmp_path / "all" / "curves.png").is_file()
    lines = [line for line in done.stdout.splitlines() if "first" in line and "│" in line]
    assert lines, done.stdout


def test_parts_of_an_init_can_start_afresh(path, tmp_path):
    config = tiny_config()
    before = VlaserPolicy.initialise(config, seed=1)
    save_pretrained(before, tmp_path)
    nano_processor(config).save(tmp_path)
    settings = cli.typed(TrainSettings, cli.load("train", [f"init={tmp_path}", "fresh=[expert]", "seed=7"]))
    after = initial_policy(settings, str(tmp_path))[0].state_dict()
    drawn = VlaserPolicy.initialise(config, seed=1)
    drawn.reset_parameters(7, ["expert"])
    for name, value in before.state_dict().items():
        assert torch.equal(after[name], drawn.state_dict()[name]), name
        if name.startswith(("vision", "projector", "language", "embed_tokens")):
            assert torch.equal(after[name], value), name
    assert not torch.equal(
        after["action_encoder.linear_1.weight"], before.state_dict()["action_encoder.linear_1.weight"]
    )


def test_the_flow_of_a_fresh_expert_begins_with_a_draw_whatever_the_old_one_s_did(tmp_path):
    config = tiny_config(initial_noise=0.0)
    save_pretrained(VlaserPolicy.initialise(config, seed=1), tmp_path)
    nano_processor(config).save(tmp_path)
    for words, noise in (
        ([], 0.0),
        (["fresh=[vision]"], 0.0),
        (["fresh=[expert]"], 1.0),
        (["fresh=[expert]", "settings.initial_noise=0.3"], 0.3),
    ):
        settings = cli.typed(TrainSettings, cli.load("train", [f"init={tmp_path}", *words]))
        assert initial_policy(settings, str(tmp_path))[0].config.initial_noise == noise


def test_a_fresh_expert_may_be_of_another_robot(tmp_path):
    before = VlaserPolicy.initialise(tiny_config(), seed=1)
    save_pretrained(before, tmp_path)
    nano_processor(tiny_config()).save(tmp_path)
    keys = [f"init={tmp_path}", "robot=google_robot"]
    with pytest.raises(CheckpointError, match="google_robot reads 8"):
        initial_policy(cli.typed(TrainSettings, cli.load("train", keys)), str(tmp_path))
    settings = cli.typed(TrainSettings, cli.load("train", [*keys, "fresh=[expert]"]))
    policy, processor, keeps = initial_policy(settings, str(tmp_path))
    assert (policy.config.robot, processor.robot, keeps) == ("google_robot", "google_robot", False)
    assert policy.state_dict()["proprio_encoder.weight"].shape[1] == 8
    for name, value in before.state_dict().items():
        if name.startswith(("vision", "projector", "language", "embed_tokens")):
            assert torch.equal(policy.state_dict()[name], value), name


# --- whose statistics


def fine_tune(run, data, init, *more: str):
    """One step with a learning rate of 0."""
    still = ("algo.steps=1", "algo.batch_size=4", "algo.learning_rate=0", "algo.expert_learning_rate=0")
    options = ("algo=sft", "device=cpu", "threads=1", "evaluate_episodes=0", f"data={data}", f"run={run}")
    main(cli.load("train", [*options, f"init={init}", *still, *more]))
    return run / "checkpoint"


def decisions(folder, spread: float = 0.01) -> np.ndarray:
    """What a policy does in a few states: ``[4, 4, 7]`` in metres, radians and the gripper's command."""
    rng, lanes = np.random.default_rng(7), np.arange(4)
    agent = load_agent(str(folder), device="cpu", micro_batch=4)
    agent.reset(lanes, [Address("widowx_stack_cube", layout=lane) for lane in range(4)])
    pose = [0.3, 0.0, 0.1, 0.7071, 0.0, 0.7071, 0.0, 1.0]
    observations = {
        "image": rng.integers(0, 256, (4, 48, 64, 3), np.uint8),
        "proprio": np.minimum(np.array(pose) + rng.normal(0, spread, (4, 8)), 1.0),
        "instruction": ["stack the cubes"] * 4,
    }
    return agent.act(observations, lanes)


def start_of(run) -> dict:
    return json.loads((run / "starts.jsonl").read_text().splitlines()[-1])


def test_nothing_learned_is_nothing_changed(tmp_path, path, capsys):
    """The data's statistics replaced the policy's, so that the same weights moved the arm otherwise."""
    before = decisions(SHIPPED / "nano")
    after = fine_tune(tmp_path / "run", path, SHIPPED / "nano")
    np.testing.assert_array_equal(decisions(after), before)
    assert (after / "statistics.json").read_text() == (SHIPPED / "nano" / "statistics.json").read_text()
    assert "Statistics: those of the policy." in capsys.readouterr().out
    replaced = fine_tune(tmp_path / "data", path, SHIPPED / "nano", "algo.statistics=data")
    assert "statistics replace those of" in capsys.readouterr().out
    assert np.abs(decisions(replaced) - before).max() > 1e-3


def test_widened_bounds_change_no_answer_within_the_old_ones(tmp_path, path, capsys):
    """The bounds by hand: the wider of the policy's and of the data's percentiles, those of actions as they were."""
    after = fine_tune(tmp_path / "run", path, SHIPPED / "nano", "algo.statistics=widen")
    within = 1e-3
    np.testing.assert_allclose(decisions(after, within), decisions(SHIPPED / "nano", within), atol=1e-5)
    assert "widened for proprioception" in (out := capsys.readouterr().out)
    assert "Warning: proprio" not in out
    own = json.loads((SHIPPED / "nano" / "statistics.json").read_text())
    stored, data = json.loads((after / "statistics.json").read_text()), read(path).proprio
    assert stored["action"] == own["action"]
    np.testing.assert_allclose(stored["proprio"]["p01"], np.minimum(own["proprio"]["p01"], np.percentile(data, 1, 0)))
    np.testing.assert_allclose(stored["proprio"]["p99"], np.maximum(own["proprio"]["p99"], np.percentile(data, 99, 0)))
    assert stored["proprio"] != own["proprio"]
    with pytest.raises(InvalidConfigError, match="no statistics to keep"):
        fine_tune(tmp_path / "random", path, "random:nano", "algo.statistics=widen")


def test_what_the_kept_bounds_clip_is_said_and_recorded(tmp_path, path, capsys):
    """Counted again from the files, row by row."""
    run = tmp_path / "run"
    fine_tune(run, path, SHIPPED / "nano")
    out, recorded = capsys.readouterr().out, start_of(run)
    bounds = json.loads((SHIPPED / "nano" / "statistics.json").read_text())
    rows = pq.read_table(sorted((path / "data").rglob("*.parquet"))).to_pydict()
    label = "action.intended" if "action.intended" in rows else "action"
    for kind, column, names in (("action", label, "xyz"), ("proprio", "observation.state", "xyz")):
        for i, name in enumerate(names):
            low, high = bounds[kind]["p01"][i], bounds[kind]["p99"][i]
            values = [np.ravel(value)[i] for value in rows[column]]
            share = sum(not low <= value <= high for value in values) / len(values)
            assert recorded["clipped"][kind][name] == pytest.approx(share)
            assert f"{name} {100 * share:.1f}" in out
            assert (share > 0.1) == (f"{name} {100 * share:.0f} %" in out.partition("Warning: ")[2])
    assert recorded["statistics"] == "keep"
    assert set(recorded["clipped"]["action"]) == {"x", "y", "z", "roll", "pitch", "yaw"}
    assert "Warning: proprio" in out


@pytest.mark.parametrize("start", ["preset", "vlm", "fresh expert", "policy without"])
def test_random_weights_take_the_datas_statistics(tmp_path, path, start):
    """A preset's or a new expert's outputs mean nothing yet; with its own statistics gone, a policy must be told."""
    folder, init, more = tmp_path / "init", str(tmp_path / "init"), []
    if start == "vlm":
        write_vlm(folder)
        tokens = {"image_token_id": SPECIAL_IDS["<IMG_CONTEXT>"], "pad_id": SPECIAL_IDS["<|endoftext|>"]}
        sizes = {"max_length": 160, "expert_width": 16, "expert_mlp": 32}
        more = [f"settings.{name}={value}" for name, value in {**tokens, **sizes}.items()]
    elif start == "preset":
        init, more = "random:nano", [f"settings.{name}={value}" for name, value in TINY.items()]
    else:
        save_pretrained(VlaserPolicy.initialise(tiny_config(), seed=1), folder)
        nano_processor(tiny_config()).save(folder)
    if start == "fresh expert":
        more = ["fresh=[expert]"]
    if start == "policy without":
        (folder / "statistics.json").unlink()
        with pytest.raises(MissingAssetError, match=r"without statistics\.json.*algo\.statistics=data\.$") as caught:
            fine_tune(tmp_path / "refused", path, init)
        assert "\n" not in str(caught.value)
        more = ["algo.statistics=data"]
    if start in ("preset", "vlm"):
        with pytest.raises(InvalidConfigError, match="no statistics to keep"):
            fine_tune(tmp_path / "refused", path, init, *more, "algo.statistics=keep")
    stored = Statistics.load(fine_tune(tmp_path / "run", path, init, *more))
    assert stored == read(path).statistics()
    assert start_of(tmp_path / "run")["statistics"] == "data"


def test_a_run_goes_on_by_the_statistics_that_it_began_with(path, tmp_path):
    run = tmp_path / "run"
    first = Statistics.load(fine_tune(run, path, SHIPPED / "nano", "algo.statistics=data"))
    for other in ("algo.statistics=keep", "algo.statistics=null"):
        with pytest.raises(StorageError, match=r"began with algo\.statistics=data, not (keep|null); choose"):
            fine_tune(run, path, SHIPPED / "nano", other)
    again = fine_tune(run, path, SHIPPED / "nano", "algo.statistics=data", "algo.steps=2")
    assert Statistics.load(again) == first
    assert start_of(run)["statistics"] == "run"
