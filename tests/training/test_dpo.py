from __future__ import annotations

import dataclasses
import math
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from demonstrations import tiny_config
from fabricate_episodes import CUBE, write_run

from vlaser_gym.agents.trainable import Likelihood
from vlaser_gym.agents.vlaser.agent import nano_processor
from vlaser_gym.agents.vlaser.densities import FlowSde, make_density
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import group_config, typed
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import DivergedError, InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.settings.algorithms import DpoSettings
from vlaser_gym.training.data import decisions
from vlaser_gym.training.data.decisions import DecisionMemory
from vlaser_gym.training.dpo import (
    PreferenceTrainer,
    Sides,
    imitation_measure,
    likelihood_measure,
    preference_objective,
)
from vlaser_gym.training.metrics import read_metrics
from vlaser_gym.training.trainer import RunOptions, trained

SETTINGS = dataclasses.replace(
    typed(DpoSettings, group_config("algo", "dpo")), density="flow_sde", batch_size=4, micro_batch=4, rise=100.0
)


def at(layout: int, trial: int) -> Address:
    return Address(CUBE, layout=f"region:{layout}", trial=trial)


#: Of two layouts a success of 2 decisions, and failures of 3 and 4.
OUTCOMES = {at(k, t): o for k in (0, 1) for t, o in enumerate([(True, 8, 4), (False, 12, 1), (False, 16, 1)])}


def trainable(config, settings, policy_seed: int = 1) -> TrainableVlaser:
    density = None
    if settings.density is not None:
        shape = {"width": config.expert_width, "action_dim": config.action_dim}
        density = make_density(settings.density, config.num_flow_steps, noise_level=settings.noise_level, **shape)
    return TrainableVlaser(VlaserPolicy.initialise(config, policy_seed), nano_processor(config), density)


def make(path, *, config=None, data=None, policy_seed=1, seed=3, options=(), **changes) -> PreferenceTrainer:
    torch.set_num_threads(1)
    config, settings = config or tiny_config(), dataclasses.replace(SETTINGS, **changes)
    runs = data or [path / "data"]
    if not runs[0].exists():
        write_run(runs[0], OUTCOMES, config, density=settings.density)
    kept = dataclasses.replace(RunOptions(seed, save_every=1, log_every=1), **dict(options))
    return PreferenceTrainer(
        trainable(config, settings, policy_seed), lambda number, agent: runs, settings, path / "run", kept
    )


def begin(trainer: PreferenceTrainer) -> PreferenceTrainer:
    """The round up to its first step."""
    assert trainer.begin_round()
    return trainer


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.agent.named_parameters()}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    """Curves are drawn in seconds, and tested elsewhere."""
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)


# ---------------------------------------------------------------------- closed forms


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def objective(win: torch.Tensor, lose: torch.Tensor, before=(0.0, 0.0), **changes):
    """Of one pair of one-decision episodes, from their measures' scores and errors."""
    ratio = torch.stack([win[0], lose[0]])[None] - torch.tensor([before], dtype=torch.float64)
    error = torch.stack([win[1], lose[1]])[None]
    return preference_objective(Sides(ratio, error, error.detach()), dataclasses.replace(SETTINGS, **changes))


def test_tpo_of_two_chunks_by_hand():
    """One number, one step of the flow from x_0 at time 0, velocity theta: mean x_0 + theta - a^2/2 x_0, spread a."""
    a, beta, theta = 0.5, 2.0, 0.3
    (x0, x1), (y0, y1) = win, lose = (0.4, 0.9), (-0.2, 0.1)

    def mean(x: float, by: float) -> float:
        return x + by - a**2 / 2 * x

    def log_p(pair: tuple[float, float], by: float) -> float:
        return -0.5 * ((pair[1] - mean(pair[0], by)) / a) ** 2 - math.log(a) - 0.5 * math.log(2 * math.pi)

    margin = beta * ((log_p(win, theta) - log_p(win, 0)) - (log_p(lose, theta) - log_p(lose, 0)))
    loss_by_hand = -math.log(sigmoid(margin))
    d_win, d_lose = (x1 - mean(x0, theta)) / a**2, (y1 - mean(y0, theta)) / a**2
    gradient_by_hand = -beta * sigmoid(-margin) * (d_win - d_lose)

    parameter = torch.tensor(theta, dtype=torch.float64, requires_grad=True)
    density = FlowSde(1, a)

    def measure(pair, by):
        chain = torch.tensor(pair, dtype=torch.float64).view(1, 2, 1, 1)
        found = density.evaluate(lambda x, t: (by * torch.ones_like(x), x), chain, torch.zeros(1, 1).long())
        return likelihood_measure(Likelihood(found.log_prob, found.entropy, 1, chain, None))

    measures = [measure(pair, parameter) for pair in (win, lose)]
    for found, pair in zip(measures, (win, lose), strict=True):
        assert found.score.item() == pytest.approx(log_p(pair, theta), abs=1e-12)
        assert found.error.item() == pytest.approx(0.5 * ((pair[1] - mean(pair[0], theta)) / a) ** 2, abs=1e-12)
    pairs = [(m.score[0], m.error[0]) for m in measures]
    loss, means = objective(*pairs, (log_p(win, 0), log_p(lose, 0)), beta=beta)
    loss.backward()
    assert loss.item() == pytest.approx(loss_by_hand, abs=1e-12)
    assert parameter.grad.item() == pytest.approx(gradient_by_hand, abs=1e-12)
    assert means[2].item() == pytest.approx(margin, abs=1e-12)


def test_flow_dpo_of_two_chunks_by_hand():
    """Velocity theta everywhere; the paths' velocity is chunk - (1 - sigma) noise. Both regularisers on."""
    beta, theta, sigma, proximal, supervised = 3.0, 0.2, 0.001, 0.7, 0.4
    win, lose, noise = 0.8, -0.5, 0.3
    targets = [chunk - (1 - sigma) * noise for chunk in (win, lose)]
    errors, before = ([(by - target) ** 2 for target in targets] for by in (theta, 0.0))
    ratio = [old - new for old, new in zip(before, errors, strict=True)]
    margin = beta * (ratio[0] - ratio[1])
    loss_by_hand = -math.log(sigmoid(margin)) + proximal * (ratio[0] ** 2 + ratio[1] ** 2) / 2 + supervised * errors[0]
    slope = [-2 * (theta - target) for target in targets]  # of the ratios
    gradient_by_hand = (
        -beta * sigmoid(-margin) * (slope[0] - slope[1])
        + proximal * (ratio[0] * slope[0] + ratio[1] * slope[1])
        - supervised * slope[0]
    )

    parameter = torch.tensor(theta, dtype=torch.float64, requires_grad=True)

    class Constant(TrainableVlaser):
        """Velocity theta at every state of the path."""

        def __init__(self, by):
            torch.nn.Module.__init__(self)
            self.policy = SimpleNamespace(
                config=SimpleNamespace(sigma_min=sigma),
                device=torch.device("cpu"),
                joint_features=lambda encoding, proprio, x, t: by * torch.ones_like(x),
                decode=lambda features: features,
            )

    def measure(chunk, by):
        numbers = [
            torch.full(shape, value, dtype=torch.float64)
            for shape, value in (((1, 1, 1), chunk), ((1, 1, 1, 1), noise))
        ]
        draws = {"noise": numbers[1], "t": torch.full((1, 1), 0.6, dtype=torch.float64)}
        return imitation_measure(Constant(by).imitation_error(None, {"proprio": numbers[0]}, numbers[0], draws))

    measures = [measure(chunk, parameter) for chunk in (win, lose)]
    assert [m.error.item() for m in measures] == pytest.approx(errors, abs=1e-12)
    pairs = [(m.score[0], m.error[0]) for m in measures]
    loss, means = objective(*pairs, [-e for e in before], beta=beta, proximal=proximal, supervised=supervised)
    loss.backward()
    assert loss.item() == pytest.approx(loss_by_hand, abs=1e-12)
    assert parameter.grad.item() == pytest.approx(gradient_by_hand, abs=1e-12)
    assert means[3].item() == float(margin > 0)
    assert means[4:6].tolist() == pytest.approx(errors)


# ---------------------------------------------------------------------- policy and reference

CASES = [
    {"loss": "tpo"},
    {"loss": "tpo", "density": "flow_sde_one_step"},
    {"loss": "flow_dpo", "density": None},
    {"loss": "flow_dpo", "freeze": []},
    {"loss": "tpo", "lora": 2},
    {"loss": "flow_dpo", "freeze": [], "lora": 2},
]


@pytest.mark.parametrize("changes", CASES, ids=str)
def test_policy_equal_to_reference_gives_minus_log_half_exactly(tmp_path, changes):
    trainer = begin(make(tmp_path, **changes))
    _, means = trainer.losses(np.arange(4), torch.Generator().manual_seed(0))
    named = dict(zip(trainer.statistics, means.tolist(), strict=True))
    assert named["preference"] == -math.log(0.5)
    assert named["margin"] == named["win_error_change"] == named["lose_error_change"] == named["proximal"] == 0
    assert named["accuracy"] == 0.5
    trainer.take_step()
    assert trainer.losses(np.arange(4), torch.Generator().manual_seed(0))[1][1] != means[1]


@pytest.mark.parametrize("changes", CASES[:4], ids=str)
def test_symmetric_pairs_pull_nowhere(tmp_path, changes):
    """A pair and its reverse, with the same numbers drawn: equal and opposite gradients."""
    trainer = begin(make(tmp_path, decisions=None, **changes))
    pair = trainer.pairs[0]
    trainer.pairs = [pair, dataclasses.replace(pair, win=pair.lose, lose=pair.win)]
    drawn: dict[int, torch.Tensor] = {}
    rows, weight = trainer._rows(np.arange(2), torch.Generator())
    assert torch.equal(rows[0], rows[1].flip(0))

    def draws(count):
        if changes["loss"] == "tpo":
            return {}
        for row in rows.flatten().tolist():
            drawn.setdefault(row, torch.randn(4, 4, 7, generator=torch.Generator().manual_seed(row)))
        chosen = [row for side in rows[: count // (2 * rows.shape[2])].flatten(0, 1) for row in side.tolist()]
        noise = torch.stack([drawn[row] for row in chosen])
        return {"noise": noise, "t": torch.linspace(0.1, 0.9, 4).expand(count, 4)}

    sizes = []
    for count in (1, 2):
        trainer.optimizer.zero_grad()
        sides = trainer.sides(rows[:count], weight[:count], draws(rows[:count].numel()))
        preference_objective(sides, trainer.settings)[0].backward()
        sizes.append(max(float(p.grad.abs().max()) for p in trained(trainer.agent) if p.grad is not None))
    assert sizes[0] > 1e-5
    assert sizes[1] < 1e-4 * sizes[0]


def test_the_reference_without_adapters_is_the_original_bit_for_bit(tmp_path):
    trainer = begin(make(tmp_path, lora=2, freeze=[], loss="flow_dpo"))
    original = trainable(tiny_config(), trainer.settings)
    for _ in range(3):
        trainer.take_step()
    rows = torch.arange(5)
    noise, t = torch.randn(5, 2, 4, 7), torch.rand(5, 2)

    def velocity(agent):
        inputs = trainer.memory.inputs(rows)
        with torch.no_grad():
            return agent.velocities(agent.encode(inputs), inputs, torch.zeros(5, 4, 7), {"noise": noise, "t": t})[0]

    with trainer.reference.active() as reference:
        assert reference is trainer.agent
        assert torch.equal(velocity(reference), velocity(original))
    assert not torch.equal(velocity(trainer.agent), velocity(original))
    stored = trainer.agent.state_dict()
    plain = {n.replace(".base_layer.", "."): p for n, p in stored.items() if ".lora_" not in n}
    for name, value in original.state_dict().items():
        assert torch.equal(plain[name], value), name


def test_a_frozen_copy_stays_and_is_renewed_every_round(tmp_path):
    trainer = make(tmp_path, rounds=2)
    first = weights(trainer)
    seen = []
    take_step = trainer.take_step

    def step():
        seen.append({n: p.clone() for n, p in trainer.reference.copy.named_parameters()})
        return take_step()

    trainer.take_step = step
    trainer.run()
    half = len(seen) // 2
    assert all(torch.equal(ref[n], first[n]) for ref in seen[:half] for n in first)
    assert all(torch.equal(ref[n], seen[-1][n]) for ref in seen[half:] for n in first)
    assert any(not torch.equal(seen[-1][n], first[n]) for n in first)


# ---------------------------------------------------------------------- data


def test_episodes_weigh_the_same_whatever_their_length(tmp_path):
    trainer = begin(make(tmp_path, decisions=3))
    starts = trainer.memory.decisions.starts
    rows, weight = trainer._rows(np.arange(4), torch.Generator().manual_seed(0))
    assert rows.shape == weight.shape == (4, 2, 3)
    torch.testing.assert_close(weight.sum(-1), torch.ones(4, 2, dtype=torch.float64))
    for item in range(4):
        for side, number in enumerate((trainer.pairs[item].win, trainer.pairs[item].lose)):
            used = rows[item, side][weight[item, side] > 0].tolist()
            assert len(set(used)) == len(used) == min(3, starts[number + 1] - starts[number])
            assert all(starts[number] <= row < starts[number + 1] for row in used)
    whole, _ = trainer._rows(np.arange(4), torch.Generator().manual_seed(1))
    assert not torch.equal(rows, whole), "long episodes give other decisions in another step"


def test_micro_batches_and_kept_prefixes_change_nothing(tmp_path):
    gradients = []
    for name, changes in (("a", {}), ("b", {"micro_batch": 1}), ("c", {"cache_mb": 0})):
        trainer = begin(make(tmp_path / name, decisions=None, **changes))
        assert (trainer.memory.cache.capacity > 0) == (name != "c")
        trainer.optimizer.step = lambda: None
        trainer.take_step()
        gradients.append([p.grad.clone() for p in trained(trainer.agent) if p.grad is not None])
    for other in gradients[1:]:
        for a, b in zip(gradients[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-6)


def test_rows_beyond_the_memory_alone_are_encoded_again(tmp_path, monkeypatch):
    whole = begin(make(tmp_path / "whole")).memory
    total, size = len(whole.decisions), whole.cache.bytes_per_decision
    encoded: list[int] = []
    encode = DecisionMemory.encode

    def counted(self, agent, rows):
        encoded.append(len(rows))
        return encode(self, agent, rows)

    monkeypatch.setattr(DecisionMemory, "encode", counted)
    monkeypatch.setattr(decisions, "_ENCODED_AT_ONCE", 2)
    part = DecisionMemory(whole.decisions, whole.agent, 5 * size, whole.agent.device)
    assert part.cache.capacity == 5 < total
    assert encoded == [2, 2, 2], "filling stops where the memory is full"
    rows = torch.tensor([7, 0, 8, 4, 5, 0, 2])
    encoded.clear()
    found, expected = part.encoding(rows), whole.encoding(rows)
    assert encoded == [3]
    assert torch.equal(found.lengths, expected.lengths)
    for pair, wanted in zip(found.cache, expected.cache, strict=True):
        for value, right in zip(pair, wanted, strict=True):
            torch.testing.assert_close(value, right, rtol=0, atol=1e-5)


def test_what_does_not_belong_together_is_refused(tmp_path):
    run = write_run(tmp_path / "plain", OUTCOMES, tiny_config(), density=None)
    with pytest.raises(InvalidConfigError, match=r"needs chains of density=flow_sde .* density=None"):
        begin(make(tmp_path, data=[run]))
    noisy = write_run(tmp_path / "noisy", OUTCOMES, tiny_config(), noise_level=0.9)
    strange = write_run(tmp_path / "strange", OUTCOMES, tiny_config(), noise_level="much")
    with pytest.raises(InvalidConfigError, match="noise_level=much"):
        begin(make(tmp_path, data=[strange]))
    with pytest.raises(InvalidConfigError, match=r"noise_level=0\.9"):
        begin(make(tmp_path, data=[noisy]))
    other = tiny_config(num_flow_steps=tiny_config().num_flow_steps + 2)
    longer = write_run(tmp_path / "longer", OUTCOMES, other)
    with pytest.raises(InvalidConfigError, match=f"num_flow_steps={other.num_flow_steps} initial_noise=1.0: collect"):
        begin(make(tmp_path, data=[longer]))
    with pytest.raises(InvalidConfigError, match="another number of flow steps"):
        begin(make(tmp_path, loss="flow_dpo", data=[noisy, longer]))
    with pytest.raises(InvalidConfigError, match="stored with chains and some without"):
        begin(make(tmp_path, loss="flow_dpo", data=[run, noisy]))
    large = write_run(tmp_path / "large", OUTCOMES, tiny_config(image_size=36))
    with pytest.raises(InvalidConfigError, match=r"pixels in the run .* collect with the policy"):
        begin(make(tmp_path, data=[large]))
    with pytest.raises(StorageError, match="no run directory"):
        begin(make(tmp_path, loss="flow_dpo", data=[tmp_path]))
    for wrong, error in (
        ({"loss": "dpo"}, UnknownNameError),
        ({"loss": "tpo", "density": None}, InvalidConfigError),
        ({"beta": 0}, InvalidConfigError),
        ({"kinds": ["better"]}, UnknownNameError),
        ({"rounds": -1}, InvalidConfigError),
        ({"density": "flow_noise"}, InvalidConfigError),
    ):
        with pytest.raises(error):
            dataclasses.replace(SETTINGS, **wrong)


def test_nothing_to_compare_is_explained_and_does_not_end_rounds(tmp_path):
    alike = dict.fromkeys(OUTCOMES, (False, 8, 1))
    run = write_run(tmp_path / "data", alike, tiny_config())
    with pytest.raises(InvalidConfigError, match="all episodes went equally well"):
        make(tmp_path, data=[run]).run()
    said: list[str] = []
    trainer = make(tmp_path, data=[run], rounds=2, options={"say": lambda text: said.append(str(text))})
    assert trainer.run()
    assert trainer.position == 0
    assert sum("The round is over" in text for text in said) == 2


# ---------------------------------------------------------------------- training


@pytest.mark.parametrize("changes", [CASES[0], CASES[3]], ids=str)
def test_training_prefers_what_won(tmp_path, changes):
    trainer = make(tmp_path, epochs=15, learning_rate=3e-3, **{"beta": 1.0, **changes})
    assert trainer.run()
    rows = [row for row in read_metrics(tmp_path / "run/metrics.jsonl") if "train/margin" in row]
    assert rows[0]["train/accuracy"] == 0.5
    assert rows[-1]["train/accuracy"] == 1
    assert rows[-1]["train/margin"] > 0.02
    assert rows[-1]["train/win_error"] < rows[-1]["train/lose_error"] or changes["loss"] == "flow_dpo"
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["rollout/env_steps"] == 2 * (8 + 12 + 16)


def test_a_rising_win_error_ends_the_round(tmp_path):
    said: list[str] = []
    say = {"say": lambda text: said.append(str(text))}
    trainer = make(tmp_path, epochs=50, patience=4, rise=0.1, options=say)
    names = trainer.statistics

    def means(change: float) -> torch.Tensor:
        values = {"win_error": 1 + change, "win_error_change": change}
        return torch.tensor([values.get(name, 0.0) for name in names], dtype=torch.float64)

    for change in (0.0, 0.0, 0.3, 0.09):
        trainer.after_step(means(change))
        assert not trainer.ended, "0.0975 on average, or too few steps"
    trainer.after_step(means(0.2))
    assert trainer.ended
    assert "14.8 % above" in said[-1]
    # The same in the loop: steps that ruin the policy.
    again = make(tmp_path / "again", epochs=50, patience=2, rise=0.5, learning_rate=1.0)
    again.run()
    assert again.position < 50


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    whole = make(tmp_path / "whole", rounds=2, epochs=3)
    assert whole.run()
    for stops in (1, 4):
        path = tmp_path / f"parts-{stops}"
        first = make(path, rounds=2, epochs=3)
        assert not first.run(lambda first=first, stops=stops: first.position >= stops)
        second = make(path, rounds=2, epochs=3)
        assert second.position == stops
        assert second.run()
        a, b = weights(whole), weights(second)
        assert all(torch.equal(a[name], b[name]) for name in a)
        rows = [read_metrics(folder / "run/metrics.jsonl") for folder in (tmp_path / "whole", path)]
        assert rows[0] == rows[1]
    with pytest.raises(InvalidConfigError, match=r"algo\.freeze and algo\.lora"):
        make(path, rounds=2, freeze=[])


def test_a_step_that_is_not_finite_changes_nothing_and_the_checkpoint_stays(tmp_path):
    trainer = make(tmp_path, epochs=3)
    losses, before = trainer.losses_of, []

    def spoiled(items, drawn):
        before.append(weights(trainer))
        loss, means = losses(items, drawn)
        factor = math.nan if trainer.position == 2 else 1.0
        return factor * loss, factor * means

    trainer.losses_of = spoiled
    match = r"^Training diverged: the loss of step 3 in round 1 is nan, .* with run=.*/run\.$"
    with pytest.raises(DivergedError, match=match):
        trainer.run()
    after = weights(trainer)
    assert all(torch.equal(value, after[name]) for name, value in before[-1].items())
    again = make(tmp_path, epochs=3)
    assert again.position == 2
    assert again.run()


def test_a_failing_evaluation_costs_no_training_and_is_made_up_for(tmp_path):
    def fail(policy):
        raise StorageError("no images here")

    scored = []

    def score(policy):
        scored.append(trainer.done)
        return {"success/mean": 1.0}

    trainer = make(tmp_path, rounds=2, epochs=1, options={"evaluate": fail, "evaluate_every": 1})
    with pytest.raises(StorageError, match="no images"):
        trainer.run()
    for _ in range(2):
        trainer = make(tmp_path, rounds=2, epochs=1, options={"evaluate": score, "evaluate_every": 1})
        assert trainer.done == (2 if scored else 1)
        assert trainer.run()
    assert scored == [1, 2]
    (tmp_path / "run/trainer.pt").write_bytes(b"PK")
    with pytest.raises(StorageError, match=r"trainer\.pt should hold"):
        make(tmp_path, rounds=2)


COMMAND = (
    *("task=widowx_carrot_on_plate", "num_envs=6", "threads=1", "algo=dpo", "evaluate_episodes=0", "log_every=1"),
    *("init=vlaser_gym/agents/vlaser/weights/nano", "algo.rounds=2", "algo.layouts=2", "algo.trials=3"),
    *("algo.rise=9", "algo.faster_by=1", "algo.noise_level=0.8", "algo.batch_size=2", "save_every=1"),
)


@pytest.mark.long
def test_a_killed_run_goes_on_exactly(tmp_path):
    """SIGKILL in the middle of a round's training and of a round's collection, on real environments."""

    def train(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "vlaser_gym.train", *COMMAND, f"run={tmp_path / name}"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)

    def killed_when(reached) -> None:
        process = train("killed")
        while not reached() and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None, process.communicate()[0]
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()

    whole = train("whole")
    output = whole.communicate(timeout=600)[0]
    assert whole.returncode == 0, output
    run = tmp_path / "killed"
    killed_when(lambda: len(read_metrics(run / "metrics.jsonl")) >= 2)
    assert torch.load(run / "trainer.pt", weights_only=True)["step"] >= 1
    killed_when(
        lambda: (run / "rounds/001/episodes.jsonl").is_file() and (run / "rounds/001/episodes.jsonl").stat().st_size
    )
    process = train("killed")
    output = process.communicate(timeout=600)[0]
    assert process.returncode == 0, output
    assert "Round 2 of 2" in output
    ends = [torch.load(tmp_path / name / "trainer.pt", weights_only=True) for name in ("whole", "killed")]
    assert ends[0]["total"] == ends[1]["total"] > 2
    for name, value in ends[0]["trained"].items():
        assert torch.equal(value, ends[1]["trained"][name]), name
    rows = [read_metrics(tmp_path / name / "metrics.jsonl") for name in ("whole", "killed")]
    assert rows[0] == rows[1]
