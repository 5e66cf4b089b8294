from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from vlaser_gym.agents.vlaser.agent import load_agent, nano_processor
from vlaser_gym.agents.vlaser.checkpoint import save_pretrained
from vlaser_gym.agents.vlaser.config import VlaserConfig
from vlaser_gym.agents.vlaser.policy import VlaserPolicy
from vlaser_gym.agents.vlaser.shipped import SHIPPED
from vlaser_gym.agents.vlaser.trainable import TrainableVlaser
from vlaser_gym.cli import load, typed
from vlaser_gym.commands import train
from vlaser_gym.commands.train import main
from vlaser_gym.errors import GymError, InvalidConfigError, MissingAssetError, StorageError, UnknownNameError
from vlaser_gym.settings.training import TrainSettings
from vlaser_gym.training import job
from vlaser_gym.training.distributed import ProcessGroup
from vlaser_gym.training.job import Job, initial_policy

NANO = f"init={SHIPPED / 'nano'}"
EVERYTHING = "[vision,embedding,language,expert]"
#: Few parameters; a byte tokenizer fits.
SMALL = {"vision_layers": 1, "layers": 2, "vision_width": 16, "vision_heads": 2, "vision_mlp": 32, "max_length": 48}


def settings(*arguments: str) -> TrainSettings:
    return typed(TrainSettings, load("train", arguments))


def refused(error: type[GymError], match: str, *arguments: str) -> None:
    with pytest.raises(error, match=match) as caught:
        main(load("train", ["device=cpu", *arguments]))
    assert "\n" not in str(caught.value)


def stored_policy(folder: Path, robot: str) -> Path:
    config = VlaserConfig.preset("nano", robot, **SMALL)
    save_pretrained(VlaserPolicy.initialise(config), folder)
    nano_processor(config).save(folder)
    return folder


# ---------------------------------------------------------------------- what to start from


@pytest.mark.parametrize("algo", ["ppo", "grpo", "dpo", "nft", "rft"])
def test_what_improves_a_policy_does_not_begin_with_random_weights(tmp_path, algo):
    match = rf"algo={algo} goes on from a policy, but init=random:nano has random weights; .* init=nano"
    refused(InvalidConfigError, match, f"algo={algo}", f"run={tmp_path}/run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("algo", ["ppo", "dpo"])
def test_what_improves_a_policy_needs_its_statistics(tmp_path, algo):
    folder = stored_policy(tmp_path / "policy", "widowx")
    (folder / "statistics.json").unlink()
    refused(MissingAssetError, "without statistics", f"algo={algo}", f"init={folder}", f"run={tmp_path}/run")
    assert not (tmp_path / "run").exists()


def test_nano_means_the_trained_policy_and_random_nano_random_weights():
    """The same names as for checkpoint=, and the same weights behind them."""
    key = "action_decoder.weight"
    shipped = load_file(SHIPPED / "nano/model.safetensors")[key]
    for init, loaded in ((name, initial_policy(settings(), name)) for name in ("nano", str(SHIPPED / "nano"))):
        assert torch.equal(loaded[0].state_dict()[key], shipped), init
        assert loaded[1].statistics.num_trajectories > 1000, init
    assert torch.equal(load_agent("nano").policy.state_dict()[key], shipped)
    drawn = VlaserPolicy.initialise(VlaserConfig.preset("nano"), seed=3).state_dict()[key]
    for policy in (initial_policy(settings("seed=3"), "random:nano")[0], load_agent("random:nano", seed=3).policy):
        assert torch.equal(policy.state_dict()[key], drawn)
    assert settings().init == "random:nano", "training from nothing is still what sft does unless told otherwise"


@pytest.mark.parametrize("init", ["toy", "vlaser_2b", "nanno", "random:nanno"])
def test_what_is_no_start_is_told_with_the_names(init):
    with pytest.raises(UnknownNameError, match=r"nearest: .*nano|nearest: random:"):
        initial_policy(settings(), init)
    with pytest.raises(InvalidConfigError, match="random:toy needs a tokenizer"):
        initial_policy(settings(), "random:toy")


def test_the_changed_meaning_is_said_where_it_matters(tmp_path, capsys):
    """init=nano was random weights; runs stored so are taken at what they meant."""
    for init, said in (("nano", True), ("random:nano", False), (str(SHIPPED / "nano"), False)):
        with pytest.raises(GymError):
            main(load("train", [f"init={init}", f"data={tmp_path}/none", f"run={tmp_path}/run", "device=cpu"]))
        assert ("random weights, its former meaning: random:nano" in capsys.readouterr().out) == said
    old = settings("algo=sft").stored("nano")
    del old["schema"]
    (tmp_path / "settings.json").write_text(json.dumps(old))
    train._check_same(tmp_path, settings("algo=sft").stored("random:nano"))
    refused(StorageError, r"another init \(random:nano\)", "init=nano", f"run={tmp_path}")
    train.keep_settings(tmp_path, settings("algo=sft").stored("random:nano"), {})
    assert json.loads((tmp_path / "settings.json").read_text())["init"] == "random:nano"


def test_several_starts_can_be_named():
    for text in ("init=[random:nano,nano]", "init=random:nano,nano"):
        assert settings(text).inits == ["random:nano", "nano"]


def test_the_robot_is_that_of_the_policy_and_of_the_tasks(tmp_path):
    folder = stored_policy(tmp_path / "google", "google_robot")
    assert initial_policy(settings(f"init={folder}"), str(folder))[1].robot == "google_robot"
    with pytest.raises(GymError, match="widowx"):
        initial_policy(settings("robot=widowx"), str(folder))
    for algo in ("ppo", "grpo", "sft", "dpo", "nft", "rft"):
        match = rf"policy {folder} is for google_robot, but task=widowx is of widowx; choose tasks"
        refused(InvalidConfigError, match, f"algo={algo}", f"init={folder}", f"run={tmp_path}/{algo}", "task=widowx")
        assert not (tmp_path / algo).exists()


def test_a_vision_language_model_gets_an_expert_for_the_robot_that_was_named(tmp_path, monkeypatch):
    seen = []

    def load_policy(init, **options):
        seen.append(options["robot"])
        raise InvalidConfigError("enough")

    monkeypatch.setattr(job, "load_policy", load_policy)
    for given, robot in (("robot=google_robot", "google_robot"), ("robot=null", None)):
        with pytest.raises(InvalidConfigError, match="enough"):
            initial_policy(settings(given), str(tmp_path))
        assert seen.pop() == robot


# ---------------------------------------------------------------------- going on


def test_a_run_is_not_continued_by_another_algorithm(tmp_path):
    kept = settings("algo=sft").stored("nano")
    train.keep_settings(tmp_path, kept, {})
    before = (tmp_path / "settings.json").read_text()
    refused(StorageError, "holds a run of algo=sft, not dpo", "algo=dpo", NANO, f"run={tmp_path}")
    assert (tmp_path / "settings.json").read_text() == before
    assert train.changed_settings(tmp_path, kept) == []
    longer = {**kept, "algo": {**kept["algo"], "steps": 7}}
    assert train.changed_settings(tmp_path, longer) == [f"algo.steps=7 (was {kept['algo']['steps']})"]
    assert train.changed_settings(tmp_path / "new", longer) == []
    train.keep_settings(tmp_path, longer, {})
    assert json.loads((tmp_path / "settings.json").read_text())["algo"]["steps"] == 7


@pytest.mark.parametrize("text", ["{", "[]", '{"algo": "sft"}', '{"algo":' * 100_000])
def test_damaged_settings_of_a_run_are_one_sentence(tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    refused(
        StorageError, r"settings\.json is damaged: expected the run's settings", "algo=sft", NANO, f"run={tmp_path}"
    )
    assert (tmp_path / "settings.json").read_text() == text


def test_an_aborted_start_leaves_nothing_that_refuses_the_next(tmp_path):
    """The folder is there already, and the first attempt has no demonstrations."""
    for algo in ("sft", "sb3_ppo"):
        run = tmp_path / algo
        run.mkdir()
        wrong = {"sft": f"data={tmp_path}/none", "sb3_ppo": "algo.options={gama: 1}"}[algo]
        with pytest.raises(GymError):
            main(load("train", [f"algo={algo}", f"run={run}", "seed=1", "num_envs=4", "device=cpu", wrong]))
        assert not list(run.iterdir())
        train.keep_settings(run, settings(f"algo={algo}", "seed=2").stored("nano"), {})
        train._check_same(run, settings(f"algo={algo}", "seed=2").stored("nano"))


def test_a_folder_that_cannot_be_written_is_said_before_anything_is_loaded(tmp_path):
    (tmp_path / "file").write_text("")
    refused(StorageError, "file", "algo=ppo", f"init={tmp_path}/none", f"run={tmp_path}/file/run")


def test_a_run_from_before_the_robot_had_no_default_goes_on(tmp_path):
    train.keep_settings(tmp_path, settings("robot=widowx").stored("nano"), {})
    train.keep_settings(tmp_path, settings().stored("nano"), {})


# ---------------------------------------------------------------------- ranges


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (["threads=0"], r"^threads must be at least 1 or null; got 0\.$"),
        (["seed=-1"], r"^seed must be at least 0; got -1\.$"),
        (["num_envs=0"], r"^num_envs must be at least 1"),
        (["algo=sft", "algo.betas=[0.9]"], r"^algo\.betas must be two numbers in \[0, 1\); got \[0\.9\]\.$"),
        (["algo=sft", "algo.learning_rate=-1"], r"^algo\.learning_rate must be at least 0; got -1\.0\.$"),
        (["algo=sft", "algo.clip=0"], r"^algo\.clip must be above 0; got 0\.0\.$"),
        (["algo=sft", f"algo.freeze={EVERYTHING}"], r"^algo\.freeze=\[.*\] leaves nothing to train; take a part"),
        (["algo=ppo", f"algo.freeze={EVERYTHING}"], r"leaves nothing to train; take a part"),
        (["algo=ppo", "algo.freeze=[vision,language,expert]", "algo.lora=2"], r"nothing to train with adapters"),
        (["algo=dpo", f"algo.freeze={EVERYTHING}"], r"leaves nothing to train; take a part"),
        (["algo=ppo", "algo.cache_device=gpu"], r"^algo\.cache_device is one of: .*; got 'gpu'\.$"),
        (["algo=nft", "algo.cache_device=cuda"], r"^algo\.cache_device is one of: cpu only"),
        (["algo=ppo", "algo.noise_bounds=[0.1,0.2,0.3]"], r"^algo\.noise_bounds must be two rising numbers above 0"),
        (["algo=ppo", "algo.learning_rate=-1"], r"^algo\.learning_rate must be at least 0"),
        (["algo=grpo", "algo.learning_rate=-1"], r"^algo\.learning_rate must be at least 0"),
        (["algo=dpo", "algo.learning_rate=-1"], r"^algo\.learning_rate must be at least 0"),
        (["algo=ppo", "algo.clip=-1"], r"^algo\.clip must be above 0"),
        (["algo=ppo", "algo.clip_range=2"], r"^algo\.clip_range must be above 0 and at most 1; got 2\.0\.$"),
        (["algo=ppo", "algo.target_kl=-1"], r"^algo\.target_kl must be above 0"),
        (["algo=ppo", "algo.flow_steps=0"], r"^algo\.flow_steps must be at least 1 or null; got 0\.$"),
        (["algo=dpo", "algo.faster_by=-3"], r"^algo\.faster_by must be at least 1; got -3\.$"),
    ],
    ids=str,
)
def test_values_out_of_range_are_one_sentence(tmp_path, monkeypatch, arguments, match):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    refused(InvalidConfigError, match, NANO, f"run={tmp_path}/run", *arguments)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("algo", ["ppo", "grpo", "sb3_ppo"])
def test_fewer_places_than_tasks_are_refused(tmp_path, algo):
    """Environments and initial states go round the tasks: of four, the last two would never come."""
    more = ("num_envs=2",) if algo != "grpo" else ("num_envs=8", "algo.group_size=8", "algo.rounds=2")
    match = r"^4 tasks need as many environments.* got 2: raise num_envs to a multiple of 4"
    refused(InvalidConfigError, match, f"algo={algo}", NANO, f"run={tmp_path}/run", "task=widowx", *more)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("algo", "key"),
    [("ppo", "save_every"), ("grpo", "log_every"), ("sb3_sac", "save_every"), ("sb3_ppo", "evaluate_every")],
)
def test_keys_that_are_not_read_are_refused(tmp_path, algo, key):
    match = rf"^{key}=7 is not read with algo={algo}, which .*; leave it out\.$"
    refused(InvalidConfigError, match, f"algo={algo}", NANO, f"run={tmp_path}/run", f"{key}=7")


@pytest.mark.parametrize("algo", ["sft", "rft", "sb3_ppo"])
def test_shares_of_tasks_are_those_of_flow_policies_on_policy(tmp_path, algo):
    more = (NANO, f"run={tmp_path}/run", "task_shares={widowx_stack_cube: 2}")
    refused(InvalidConfigError, rf"is not read with algo={algo}, where no task", f"algo={algo}", *more)


def a_job(tmp_path: Path, say=lambda text: None, *arguments: str) -> Job:
    return Job(settings(*arguments), None, "nano", tmp_path, ProcessGroup(), say=say)


def test_unequal_shares_are_said(tmp_path):
    said: list[str] = []
    a_job(tmp_path, said.append, "task=[widowx_stack_cube,widowx_spoon_on_towel,widowx_carrot_on_plate]").say_shares(8)
    assert "the first 2 have one more" in said.pop()
    a_job(tmp_path, said.append, "task=widowx").say_shares(8)
    a_job(tmp_path, said.append, "task=widowx", "task_shares={widowx_stack_cube: 5}").say_shares(16)
    assert not said


def test_a_task_takes_its_share_of_turns(tmp_path):
    both = "task=[widowx_stack_cube,widowx_carrot_on_plate]"
    job = a_job(tmp_path, lambda text: None, both, "task_shares={widowx_stack_cube: 2}")
    assert job.turns == ["widowx_stack_cube", "widowx_stack_cube", "widowx_carrot_on_plate"]
    with pytest.raises(UnknownNameError, match="task of task_shares"):
        _ = a_job(tmp_path, lambda text: None, both, "task_shares={widowx_spoon_on_towel: 2}").turns
    with pytest.raises(InvalidConfigError, match=r"1 or more; got 0\.$"):
        _ = a_job(tmp_path, lambda text: None, both, "task_shares={widowx_stack_cube: 0}").turns


# ---------------------------------------------------------------------- evaluation


def test_evaluation_does_not_compile_the_policy_in_training():
    config = VlaserConfig.preset("nano", **SMALL)
    agent = TrainableVlaser(VlaserPolicy.initialise(config), nano_processor(config))
    assert agent.acting().describe()["compile"] is False
