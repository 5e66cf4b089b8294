"""agent=sb3 scores what algo=sb3_ppo and algo=sb3_sac trained."""

from __future__ import annotations

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from stable_baselines3 import A2C, PPO, SAC
from stable_baselines3.common.vec_env import VecNormalize

from vlaser_gym import cli
from vlaser_gym.agents import make_agent
from vlaser_gym.agents.sb3 import StableBaselines3Agent
from vlaser_gym.commands import eval as eval_command
from vlaser_gym.commands import train as train_command
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, StorageError
from vlaser_gym.evaluation.store import read_records
from vlaser_gym.training.evaluation import run_episodes
from vlaser_gym.wrappers.action import ACTION_RANGE
from vlaser_gym.wrappers.sb3 import StableBaselines3VecEnv

TASK = "widowx_stack_cube"
KINDS = {"sb3_sac": SAC, "sb3_ppo": PPO}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of SAC, whose actions are control steps, and one of PPO, whose actions are chunks of four."""
    folder, found = tmp_path_factory.mktemp("runs"), {}
    small = {
        "sb3_sac": ["algo.options.learning_starts=20", "algo.options.policy_kwargs={net_arch:[16]}"],
        "sb3_ppo": ["algo.options.n_steps=30", "algo.options.batch_size=30", "algo.horizon=4"],
    }
    shared = [f"task={TASK}", "num_envs=2", "threads=1", "evaluate_episodes=0", "algo.timesteps=80"]
    for name, own in small.items():
        found[name] = folder / name
        train_command.main(cli.load("train", [f"algo={name}", f"run={found[name]}", *shared, *own]))
    return found


def states(count: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(count, 26)).astype(np.float32)


@pytest.mark.slow
@pytest.mark.parametrize("trust", [False, True])
@pytest.mark.parametrize("name", KINDS)
def test_actions_are_those_of_the_library_itself(runs: dict[str, Path], name: str, trust: bool) -> None:
    agent = StableBaselines3Agent(str(runs[name]), trust=trust)
    assert agent.observes == ("state",)
    model = KINDS[name].load(runs[name] / "model.zip")
    with (runs[name] / "normalization.pkl").open("rb") as stream:
        normalization = pickle.load(stream)
    assert isinstance(normalization, VecNormalize)
    seen = states(11)
    expected, _ = model.predict(normalization.normalize_obs({"state": seen}), deterministic=True)
    expected = expected.reshape(11, -1, 7) * np.array(ACTION_RANGE)
    assert np.abs(expected).max() > 1e-3
    found = agent.act({"state": seen}, np.arange(11))
    assert found.shape == (11, 4 if name == "sb3_ppo" else 1, 7)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    # One shape of forward passes for all: what an environment does is independent of the others, to the last bit.
    for row in (0, 7, 10):
        assert (agent.act({"state": seen[row : row + 1]}, np.array([row])) == found[row]).all()


@pytest.mark.parametrize("name", KINDS)
def test_the_command_scores_a_run(runs: dict[str, Path], tmp_path: Path, name: str) -> None:
    arguments = [
        "agent=sb3",
        f"checkpoint={runs[name]}",
        f"task={TASK}",
        "episodes=2",
        "video=0",
        f"run={tmp_path}/run",
    ]
    cli.run("eval", eval_command.main, arguments)
    records = read_records(tmp_path / "run")
    assert [record["agent"] for record in records] == ["sb3"] * 2
    assert [record["steps"] for record in records] == [60, 60]
    assert f"checkpoint: {runs[name]}" in (tmp_path / "run" / "config.yaml").read_text()


def test_episodes_are_those_of_the_environment_it_was_trained_in(runs: dict[str, Path]) -> None:
    """The adapter's own loop over the same layouts ends where the runner does."""
    agent = make_agent({"_target_": "vlaser_gym.agents.sb3.StableBaselines3Agent", "checkpoint": str(runs["sb3_ppo"])})
    seen: list[np.ndarray] = []
    act = agent.act

    def watched(observations, lanes):  # type: ignore[no-untyped-def]
        seen.append(np.array(observations["state"]))
        return act(observations, lanes)

    agent.act = watched  # type: ignore[method-assign]
    run_episodes(agent, [get_task(TASK)], 1, num_envs=1)
    lanes = SceneVectorEnv(TASK, 1, layouts="region", observe=("state",), autoreset_mode="SameStep")
    model = PPO.load(runs["sb3_ppo"] / "model.zip")
    env = VecNormalize.load(str(runs["sb3_ppo"] / "normalization.pkl"), StableBaselines3VecEnv(lanes, horizon=4))
    env.training = False
    env.set_options([{"layout": "region:0"}])
    observation, raw = env.reset(), []
    for _ in range(15):
        raw.append(env.get_original_obs()["state"])
        observation, *_ = env.step(model.predict(observation, deterministic=True)[0])
    env.close()
    np.testing.assert_allclose(np.concatenate(seen), np.concatenate(raw), atol=1e-5)


class Spy:
    """A pickle that leaves a trace when it is read."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.trace,))


def test_foreign_pickles_are_refused_before_they_run(runs: dict[str, Path], tmp_path: Path) -> None:
    foreign = tmp_path / "run"
    foreign.mkdir()
    (foreign / "model.zip").write_bytes((runs["sb3_ppo"] / "model.zip").read_bytes())
    (foreign / "normalization.pkl").write_bytes(pickle.dumps(Spy(tmp_path / "trace")))
    with pytest.raises(InvalidConfigError, match=r"normalization\.pkl holds more than numbers .*agent\.trust=true"):
        StableBaselines3Agent(str(foreign))
    assert not (tmp_path / "trace").exists()
    StableBaselines3Agent(str(foreign), trust=True)
    assert (tmp_path / "trace").exists(), "the trace shows that reading it runs it"


def test_models_that_do_not_fit_are_one_sentence(runs: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match=r"needs a model\.zip"):
        StableBaselines3Agent(str(tmp_path))
    with pytest.raises(InvalidConfigError, match="give checkpoint=RUN"):
        make_agent("sb3")
    cut = tmp_path / "model.zip"
    cut.write_bytes((runs["sb3_sac"] / "model.zip").read_bytes()[:5000])
    with pytest.raises(StorageError, match=r"model\.zip should hold a model of Stable-Baselines3"):
        StableBaselines3Agent(str(tmp_path))
    classes = A2C(
        "MultiInputPolicy",
        StableBaselines3VecEnv(SceneVectorEnv(TASK, 1, observe=("state",), autoreset_mode="SameStep")),
        policy_kwargs={"activation_fn": torch.nn.ELU},
    )
    classes.save(cut)
    with pytest.raises(InvalidConfigError, match="classes in policy_kwargs"):
        StableBaselines3Agent(str(cut))
    PPO("MlpPolicy", "CartPole-v1").save(cut)
    with pytest.raises(InvalidConfigError, match=r"should read state or proprio.*it reads Box"):
        StableBaselines3Agent(str(cut), trust=True)


@pytest.mark.parametrize(
    "code",
    [
        "from vlaser_gym.cli import run; run('train', print, ['--help'])",
        "import vlaser_gym.training.ppo, vlaser_gym.training.algorithms, vlaser_gym.commands.train",
        "import vlaser_gym.wrappers, vlaser_gym.agents.sb3, vlaser_gym.face",
    ],
)
def test_the_library_is_loaded_only_when_asked_for(code: str) -> None:
    asked = f"import sys; {code}; print('stable_baselines3' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines()[-1] == "False"
