from __future__ import annotations

import base64
import dataclasses
import json
import pickle
import zipfile

import numpy as np
import pytest
import torch
from stable_baselines3 import PPO, SAC

from vlaser_gym.cli import group_config, load, typed
from vlaser_gym.commands.train import main
from vlaser_gym.errors import InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.settings.algorithms import Sb3Settings
from vlaser_gym.training.metrics import read_metrics
from vlaser_gym.training.stock import StockTraining, make_state_env

TASK = "widowx_stack_cube"
OPTIONS = {
    "sb3_ppo": {"n_steps": 30, "batch_size": 30, "n_epochs": 1},
    "sb3_sac": {"learning_starts": 20, "batch_size": 16, "buffer_size": 500, "gradient_steps": 1, "train_freq": 10},
}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch):
    monkeypatch.setattr("vlaser_gym.training.metrics.draw_curves", lambda *_: None)


def settings(name: str, **changes) -> Sb3Settings:
    stock = typed(Sb3Settings, group_config("algo", name))
    options = {**OPTIONS[name], "policy_kwargs": {"net_arch": [16]}}
    return dataclasses.replace(stock, timesteps=120, options=options, **changes)


def parameters(model) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in model.policy.state_dict().items()}


@pytest.mark.parametrize(("kind", "expected"), [("region2", [0, 1, 2]), ("grid", [0, 1, 2])])
def test_it_is_scored_on_layouts_of_the_kind_that_it_learns_from(tmp_path, monkeypatch, kind, expected):
    """They were region layouts whatever layouts= said."""
    lanes = make_state_env([TASK], 2, settings("sb3_ppo"), layouts=kind)
    shown = []
    try:
        training = StockTraining(lanes, settings("sb3_ppo"), tmp_path, layouts=kind)
        reset = training.env.set_options
        monkeypatch.setattr(training.env, "set_options", lambda options: (shown.extend(options), reset(options)))
        training.evaluate(3)
    finally:
        lanes.close()
    assert [option["layout"] for option in shown[:3]] == [f"{kind}:{index}" for index in expected]


@pytest.mark.parametrize(("name", "algorithm"), [("sb3_ppo", PPO), ("sb3_sac", SAC)])
def test_a_run_learns_keeps_its_model_and_goes_on(tmp_path, monkeypatch, name, algorithm):
    torch.set_num_threads(1)
    lanes = make_state_env([TASK], 2, settings(name))
    try:
        first = StockTraining(lanes, settings(name), tmp_path)
        assert type(first.model) is algorithm
        before = parameters(first.model)
        assert not first.run(lambda: first.timesteps >= 80)
        after = parameters(first.model)
        assert any(not torch.equal(before[key], after[key]) for key in after)
        # The file is stock: the library itself reads it.
        stored = parameters(algorithm.load(tmp_path / "model.zip"))
        assert all(torch.equal(stored[key], after[key]) for key in after)
        seeds = []
        with monkeypatch.context() as patch:
            patch.setattr(type(lanes), "seed", lambda self, seed: seeds.append(seed))
            second = StockTraining(lanes, settings(name), tmp_path, seed=5)
        assert seeds[-1] == 5 + 80, "new episodes, not the first ones again"
        assert second.timesteps == first.timesteps == 80
        assert all(torch.equal(value, after[key]) for key, value in parameters(second.model).items())
        if algorithm is SAC:
            assert second.model.replay_buffer.size() == 39  # not the step that was interrupted
            assert second.model.replay_buffer.n_envs == 2
        assert second.run()
        assert second.timesteps >= 120
        assert read_metrics(tmp_path / "metrics.jsonl") or algorithm is SAC
        scores = second.evaluate(3)
        assert scores.keys() == {"evaluation/success", "evaluation/reached"}
        second.evaluate(3)
        rows = [row for row in read_metrics(tmp_path / "metrics.jsonl") if "evaluation/success" in row]
        assert rows == [{"step": second.timesteps, **scores}]
        assert scores["evaluation/success"] * 3 == pytest.approx(round(scores["evaluation/success"] * 3))
        (tmp_path / "model.zip").write_bytes(b"PK")
        with pytest.raises(StorageError, match=r"model\.zip should hold"):
            StockTraining(lanes, settings(name), tmp_path)
    finally:
        lanes.close()


@pytest.mark.parametrize("name", ["sb3_ppo", "sb3_sac"])
def test_another_number_of_environments_on_the_way(tmp_path, name):
    """SAC's memory has a column for each of them; PPO forgets its rollouts."""
    lanes = make_state_env([TASK], 2, settings(name))
    try:
        first = StockTraining(lanes, settings(name), tmp_path)
        first.run(lambda: first.timesteps >= 60)
    finally:
        lanes.close()
    lanes = make_state_env([TASK], 3, settings(name))
    try:
        if name == "sb3_sac":
            with pytest.raises(InvalidConfigError, match=r"in 2 environments, .* with num_envs=2, not 3\.$"):
                StockTraining(lanes, settings(name), tmp_path)
        else:
            second = StockTraining(lanes, settings(name), tmp_path)
            assert second.run()
            assert second.model.n_envs == 3
    finally:
        lanes.close()


def test_death_between_two_files_leaves_those_of_one_step(tmp_path, monkeypatch):
    """A model, its normalisation and its memory belong together; the run and whoever scores it read one step's."""
    lanes = make_state_env([TASK], 2, settings("sb3_sac"))
    try:
        first = StockTraining(lanes, settings("sb3_sac"), tmp_path)
        first.run(lambda: first.timesteps >= 60)
        before = first.timesteps
        first.run(lambda: first.timesteps >= before + 20)
        wanted = parameters(first.model)
        # As if the last moves had not been made: the memory still lies where it was written.
        (tmp_path / ".together").mkdir()
        (tmp_path / "replay_buffer.pkl").rename(tmp_path / ".together/replay_buffer.pkl")
        (tmp_path / "replay_buffer.pkl").write_bytes(b"of an earlier step")
        second = StockTraining(lanes, settings("sb3_sac"), tmp_path)
        assert second.timesteps == first.timesteps > before
        assert second.model.replay_buffer.size() == first.model.replay_buffer.size()
        assert all(torch.equal(value, wanted[name]) for name, value in parameters(second.model).items())
        assert second.run()
        assert not (tmp_path / ".together").exists()
        assert (tmp_path / "replay_buffer.pkl").stat().st_size > 1000
    finally:
        lanes.close()


def test_rewards_and_discounts(tmp_path):
    """Chunks: the algorithm discounts by what a whole chunk is worth."""
    wanted = settings("sb3_ppo", horizon=4, gamma=0.9, reward="subgoals")
    lanes = make_state_env([TASK], 2, wanted)
    try:
        assert StockTraining(lanes, wanted, tmp_path).model.gamma == pytest.approx(0.9**4)
        assert lanes.action_space.shape == (4, 7)
        assert "SubgoalReward" in str(lanes.venv.lanes)
        lanes.reset()
        infos = lanes.step(np.zeros((2, 4, 7)))[3]
        assert "reached" not in infos[0]
    finally:
        lanes.close()


def test_bad_settings_are_one_sentence(tmp_path):
    with pytest.raises(UnknownNameError, match="reward"):
        settings("sb3_ppo", reward="dense")
    lanes = make_state_env([TASK], 2, settings("sb3_ppo"))
    try:
        wrong = dataclasses.replace(settings("sb3_ppo"), options={"steps": 3})
        with pytest.raises(InvalidConfigError, match=r"keyword arguments of Stable-Baselines3's PPO: .*steps"):
            StockTraining(lanes, wrong, tmp_path)
    finally:
        lanes.close()


def test_the_command(tmp_path, capsys):
    arguments = ("algo=sb3_ppo", f"task={TASK}", f"run={tmp_path}/run", "num_envs=2", "threads=1")
    small = ("algo.timesteps=60", "algo.options.n_steps=30", "algo.options.batch_size=30", "evaluate_episodes=2")
    main(load("train", [*arguments, *small]))
    output = capsys.readouterr().out
    assert "sb3_ppo at 0 of 60 actions" in output
    assert "evaluation/reached" in output
    assert f"60 of 60 actions. Model: {tmp_path}/run/model.zip" in output


class Touches:
    """A pickle that runs code when it is read."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return (type(self.mark).touch, (self.mark,))


@pytest.mark.parametrize("file", ["normalization.pkl", "replay_buffer.pkl", "model.zip"])
def test_code_in_a_run_directory_does_not_run(tmp_path, file):
    """Of the model's own pickles, in its JSON, none is read at all: the run goes on without them."""
    mark, path = tmp_path / "owned", tmp_path / "run"
    lanes = make_state_env([TASK], 2, settings("sb3_sac"))
    try:
        StockTraining(lanes, settings("sb3_sac"), path).save()
        evil = pickle.dumps(Touches(mark))
        if file == "model.zip":
            with zipfile.ZipFile(path / file) as archive:
                parts = {name: archive.read(name) for name in archive.namelist()}
            data = json.loads(parts["data"])
            data["policy_class"] = {":type:": "x", ":serialized:": base64.b64encode(evil).decode()}
            with zipfile.ZipFile(path / file, "w") as archive:
                for name, content in {**parts, "data": json.dumps(data).encode()}.items():
                    archive.writestr(name, content)
            StockTraining(lanes, settings("sb3_sac"), path)
        else:
            (path / file).write_bytes(evil)
            with pytest.raises(InvalidConfigError, match=r"holds more than numbers \(.*could run any code"):
                StockTraining(lanes, settings("sb3_sac"), path)
    finally:
        lanes.close()
    assert not mark.exists()
    pickle.loads(evil)
    assert mark.exists(), "the pickle is armed"


def test_a_model_that_was_saved_is_the_one_that_goes_on(tmp_path):
    """Beside Stable-Baselines3's own reader: networks, optimizers, the entropy's weight, memory and counters."""
    lanes = make_state_env([TASK], 2, settings("sb3_sac"))
    try:
        training = StockTraining(lanes, settings("sb3_sac"), tmp_path)
        training.run()
        own = SAC.load(tmp_path / "model.zip", device="cpu")
        own.load_replay_buffer(tmp_path / "replay_buffer.pkl")
        ours = StockTraining(lanes, settings("sb3_sac"), tmp_path).model
    finally:
        lanes.close()
    for name, value in parameters(own).items():
        torch.testing.assert_close(parameters(ours)[name], value, rtol=0, atol=0)
    assert torch.equal(ours.log_ent_coef, own.log_ent_coef)
    for mine, theirs in zip(ours.actor.optimizer.state.values(), own.actor.optimizer.state.values(), strict=True):
        assert torch.equal(mine["exp_avg"], theirs["exp_avg"])
    assert (ours.num_timesteps, ours._n_updates, ours._episode_num) == (
        own.num_timesteps,
        own._n_updates,
        own._episode_num,
    )
    np.testing.assert_array_equal(ours.replay_buffer.actions, own.replay_buffer.actions)
    assert ours.replay_buffer.pos == own.replay_buffer.pos
