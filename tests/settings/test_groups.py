from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from vlaser_gym import cli
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.settings.algorithms import ALGORITHM_SETTINGS
from vlaser_gym.settings.groups import described, group_defaults, groups
from vlaser_gym.settings.synonyms import likely_keys
from vlaser_gym.training.algorithms import ALGORITHMS, get_algorithm

#: Sentences may begin with a value that the key can have.
WORDS = {"cpu", "float32", "float32,", "flow_sde,", "flow_sde_one_step,", "sparse", "tpo:", "widowx", "vlaser"}
#: An algorithm of somebody who has only the package: no YAML file, no base class of ours.
OWN = '''
from dataclasses import dataclass, field
from vlaser_gym.settings.fields import option
from vlaser_gym.training.algorithms import Algorithm, register_algorithm

@dataclass
class Tuning:
    """Turns a knob until the time is up."""

    turns: int = option(3, "How often the knob is turned.", least=1)
    learning_rate: float = option(0.1, "How far each time.", above=0)
    knobs: list[str] = field(default_factory=lambda: ["left"])

class Turner:
    def __init__(self, job):
        self.job = job
    def describe(self):
        return "one knob"
    def run(self, stop):
        return True
    def summary(self):
        return f"turned {self.job.algo.turns} times by {self.job.algo.learning_rate}: {self.job.algo.knobs}"
    def record(self):
        return {}
    def close(self):
        pass

ALGORITHM = Algorithm(settings=Tuning, build=Turner, needs_policy=False)
register_algorithm("turning", ALGORITHM)
WRONG = 7

if __name__ == "__main__":
    from vlaser_gym.commands.train import command
    command()
'''


def own(folder: Path, *words: str, script: bool = False) -> subprocess.CompletedProcess[str]:
    (folder / "own_algorithm.py").write_text(OWN)
    command = ["own_algorithm.py"] if script else ["-m", "vlaser_gym.train"]
    root = str(Path(cli.__file__).parents[1])
    environment = {"PYTHONPATH": f"{root}:{folder}", "PATH": "/usr/bin:/bin", "HOME": str(folder)}
    return subprocess.run(
        [sys.executable, *command, *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "script"), [("own_algorithm:ALGORITHM", False), ("turning", True)], ids=["import string", "registered"]
)
def test_an_algorithm_from_outside_has_keys_help_and_checks(tmp_path: Path, name: str, script: bool) -> None:
    told = own(tmp_path, f"algo={name}", "--help", script=script)
    assert told.returncode == 0, told.stderr
    assert "  algo.turns=3   (at least 1)\n      How often the knob is turned.\n" in told.stdout
    assert f"{name}: Turns a knob until the time is up." in told.stdout
    assert "  algo.knobs=[left]\n" in told.stdout
    run = f"run={tmp_path}/run"
    done = own(tmp_path, f"algo={name}", run, "algo.turns=5", "algo.knobs=a,b", "device=cpu", script=script)
    assert done.returncode == 0, done.stderr
    assert "turned 5 times by 0.1: ['a', 'b']" in done.stdout
    assert (tmp_path / "run" / "settings.json").is_file()


def test_what_is_wrong_below_an_algorithm_from_outside_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    refused = own(tmp_path, "algo=own_algorithm:ALGORITHM", "algo.turns=0", "device=cpu")
    assert refused.returncode == 2
    assert refused.stderr == "Error: algo.turns must be at least 1; got 0.\n"
    (tmp_path / "another_algorithm.py").write_text(OWN.replace("register_algorithm(", "(lambda *_: None)("))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    name = "algo=another_algorithm:ALGORITHM"
    try:
        with pytest.raises(UnknownNameError, match=r"nearest: algo\.learning_rate"):
            cli.load("train", [name, "algo.lr=1"])
        config = cli.load("train", [name, "algo.turns=x"])
        tuning = get_algorithm("another_algorithm:ALGORITHM").settings
        with pytest.raises(InvalidConfigError, match=r"^algo\.turns has a wrong value"):
            cli.typed(tuning, config.algo, "algo.")
    finally:
        ALGORITHM_SETTINGS.pop("another_algorithm:ALGORITHM")


def test_a_run_of_an_imported_algorithm_finds_a_folder_by_itself(tmp_path: Path) -> None:
    done = own(tmp_path, "algo=own_algorithm:ALGORITHM", "device=cpu")
    assert done.returncode == 0, done.stderr
    assert [path.name.startswith("own_algorithm-ALGORITHM-") for path in (tmp_path / "runs").iterdir()] == [True]


def test_what_is_imported_and_is_no_algorithm_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a_module_of_mine.py").write_text("WRONG = 7\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(InvalidConfigError, match=r"algo=a_module_of_mine:WRONG should name a .*Algorithm"):
        cli.load("train", ["algo=a_module_of_mine:WRONG"])
    with pytest.raises(InvalidConfigError, match="algo must be importable"):
        cli.load("train", ["algo=a_module_of_mine:NOTHING"])
    assert "a_module_of_mine:WRONG" not in ALGORITHM_SETTINGS


def test_every_algorithm_has_settings_and_every_settings_class_an_algorithm() -> None:
    assert {name: algorithm.settings for name, algorithm in ALGORITHMS.items()} == ALGORITHM_SETTINGS
    for name, cls in ALGORITHM_SETTINGS.items():
        assert cls().name == name


def test_groups_are_files_and_algorithms() -> None:
    found = groups()
    assert found.keys() == {"agent", "algo", "engine", "launcher"}
    assert {"ppo", "sft", "sb3_sac"} <= {*found["algo"]}
    assert group_defaults("algo", "sb3_sac")["options"]["policy_kwargs"] == {"net_arch": [64, 64]}
    assert group_defaults("algo", "sft")["betas"] == [0.9, 0.99]
    with pytest.raises(UnknownNameError, match="Unknown engine 'maniskil'"):
        group_defaults("engine", "maniskil")


@pytest.mark.parametrize(
    ("group", "option"), [(group, option) for group, options in groups().items() for option in options]
)
def test_every_option_of_a_group_says_what_it_is_and_what_its_keys_mean(group: str, option: str) -> None:
    intro, keys = described(group, option)
    assert intro.endswith(".") or option == "remote"
    assert group_defaults(group, option).keys() - {"name", "_target_", "url"} == keys.keys() - {"url"}
    assert all(known.sentence[0].isupper() or known.sentence.split()[0] in WORDS for known in keys.values())


def test_comments_of_files_explain_their_keys() -> None:
    intro, keys = described("agent", "vlaser_explore")
    assert intro.startswith("A Vlaser policy with noise in its flow")
    assert keys["noise_level"].sentence == "How much noise; docs/post_training.md says how it enters."
    assert "_target_" not in keys


@pytest.mark.parametrize(
    ("command", "wrong", "right"),
    [
        ("train", "algo.lr", "algo.learning_rate"),
        ("train", "lr", "algo.learning_rate"),
        ("train", "learning_rate", "algo.learning_rate"),
        ("train", "algo.bs", "algo.batch_size"),
        ("train", "algo.wd", "algo.weight_decay"),
        ("train", "algo.max_grad_norm", "algo.clip"),
        ("train", "n_envs", "num_envs"),
        ("train", "output_dir", "run"),
        ("eval", "ckpt", "checkpoint"),
        ("eval", "env", "task"),
        ("eval", "num_episodes", "episodes"),
        ("eval", "num_env", "num_envs"),
    ],
)
def test_a_wrong_key_suggests_the_right_one_first(command: str, wrong: str, right: str) -> None:
    with pytest.raises(UnknownNameError, match=rf"^Unknown key '{wrong}': .*nearest: {right}[,.]"):
        cli.load(command, [f"{wrong}=1"])


def test_synonyms_of_ppo_and_what_is_no_synonym() -> None:
    ppo = [f"algo.{key}" for key in group_defaults("algo", "ppo")]
    found = {word: likely_keys(f"algo.{word}", ppo) for word in ("n_epochs", "clip_eps", "lam", "critic_lr", "colour")}
    assert found == {
        "n_epochs": ["algo.epochs"],
        "clip_eps": ["algo.clip_range"],
        "lam": ["algo.gae_lambda"],
        "critic_lr": ["algo.critic_learning_rate"],
        "colour": [],
    }


HEAVY = ("torch", "stable_baselines3", "transformers", "mujoco")


@pytest.mark.parametrize("words", [("train",), ("train", "algo=ppo"), ("eval", "agent=vlaser"), ("collect",)], ids=str)
def test_help_answers_without_what_the_command_needs(words: tuple[str, ...], tmp_path: Path) -> None:
    """Within two seconds of the processor, which is what it takes where nothing else runs; the least of three."""
    code = f"""
import runpy, sys
sys.argv = ["x", "--help", *{words[1:]!r}]
runpy.run_module("vlaser_gym.{words[0]}", run_name="__main__")
heavy = [name for name in {HEAVY!r} if name in sys.modules]
sys.exit(f"imported {{heavy}}" if heavy else 0)
"""
    environment = {"PYTHONPATH": str(Path(cli.__file__).parents[1]), "PATH": "/usr/bin:/bin"}
    command, seconds = [sys.executable, "-c", code], []
    for _ in range(3):
        before = os.times()
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        after = os.times()
        seconds.append(sum(after[2:4]) - sum(before[2:4]))  # of children, user and system
        assert done.returncode == 0, done.stderr
    assert min(seconds) < 2
    if len(words) > 1:
        group = words[1].partition("=")[0]
        assert f"\n  {group}." in done.stdout


def test_help_of_an_algorithm_explains_each_of_its_keys(capsys: pytest.CaptureFixture[str]) -> None:
    cli.run("train", lambda config: pytest.fail("ran"), ["--help", "algo=grpo"])
    said = capsys.readouterr().out
    for key in group_defaults("algo", "grpo"):
        assert (f"\n  algo.{key}=" in said) == (key != "name")
    assert "algo.gamma" not in said
    cli.run("train", lambda config: pytest.fail("ran"), ["--help"])
    assert "algo.iterations" not in capsys.readouterr().out
