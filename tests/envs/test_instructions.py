"""Instructions of one's own: where they come from, who is told which, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.instructions import Instructions, drawn, stored_instructions
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError

CARROT, CUBE = "widowx_carrot_on_plate", "widowx_stack_cube"
WORDS = ("lay it down", "put the orange thing on the dish", "karotte auf den teller, über den rand")


def test_a_file_holds_the_same_as_the_command_line(tmp_path: Path) -> None:
    """What is kept are the words themselves, so that a file may change later."""
    (tmp_path / "words.txt").write_text("one\n\n two \n")
    (tmp_path / "list.yaml").write_text("- one\n- two\n")
    (tmp_path / "tasks.yaml").write_text(f"{CARROT}: one\n{CUBE}: [one, two]\n")
    assert stored_instructions("one") == ["one"]
    assert stored_instructions(["one", "two"]) == ["one", "two"]
    assert stored_instructions(str(tmp_path / "words.txt")) == ["one", "two"]
    assert stored_instructions(tmp_path / "list.yaml") == ["one", "two"]
    by_task = {CARROT: ["one"], CUBE: ["one", "two"]}
    assert stored_instructions(str(tmp_path / "tasks.yaml")) == by_task == stored_instructions(by_task)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ("", "a sentence, a list of sentences"),
        ([], "a sentence, a list of sentences"),
        ([1, "two"], "got \\[1, 'two'\\]"),
        (5, "got 5"),
        ("nowhere.txt", "nowhere.txt cannot be read"),
    ],
)
def test_what_is_no_sentence_is_refused_in_one(given: Any, sentence: str) -> None:
    with pytest.raises(GymError, match=sentence) as error:
        stored_instructions(given)
    assert "\n" not in str(error.value)


def test_one_sentence_is_not_told_to_several_tasks() -> None:
    with pytest.raises(GymError, match=f"One instruction does not fit 2 tasks \\({CARROT}, {CUBE}\\)"):
        Instructions.read("put it down").check([CARROT, CUBE])
    with pytest.raises(GymError, match=f"names the task '{CUBE}', which is not run"):
        Instructions.read({CUBE: "put it down"}).check([CARROT])
    Instructions.read({CARROT: "put it down"}).check([CARROT, CUBE])


def test_paraphrases_are_dealt_by_the_address_alone() -> None:
    """The draw is recomputed from the address's own stream; all sentences occur, whatever ran before."""
    addresses = [Address(CARROT, layout=f"region:{k}") for k in range(40)]
    told = [drawn(WORDS, address) for address in addresses]
    assert told == [WORDS[address.rng("instruction").integers(3)] for address in addresses]
    assert [drawn(WORDS, address) for address in reversed(addresses)] == told[::-1]
    assert set(told) == set(WORDS)


def test_the_environment_tells_them_and_records_them() -> None:
    env = SceneVectorEnv(
        [CARROT, CUBE],
        2,
        observe=("instruction",),
        instruction={CARROT: list(WORDS)},
        record_states=True,
        max_episode_steps=3,
        engine_options={"threads": 1},
    )
    observation, info = env.reset(options={"layout": 5})
    expected = (drawn(WORDS, Address(CARROT, layout="grid:5")), "stack the green block on the yellow block")
    assert observation["instruction"] == expected
    assert [str(state["instruction"]) for state in info["initial_states"]] == list(expected)
    assert env.get_attr("instruction") == expected
    assert all(env.single_observation_space["instruction"].contains(text) for text in (*WORDS, expected[1]))
    *_, truncated, _ = env.step_chunk(np.zeros((2, 4, 7)))
    assert truncated.all(), "after 3 of the 4 steps"
    env.close()
    with pytest.raises(GymError, match="does not fit 2 tasks"):
        SceneVectorEnv([CARROT, CUBE], 2, observe=("instruction",), instruction="put it down")


def test_an_evaluation_keeps_what_was_told_and_compare_warns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs with other words are paired by the same addresses, as the same test is made of both."""
    import vlaser_gym
    from vlaser_gym.evaluation.store import read_config, read_records, read_states

    monkeypatch.chdir(tmp_path)
    keys = {"task": CARROT, "episodes": 2, "max_episode_steps": 2, "video": 0, "report": False}
    keys |= {"engine": {"name": "mujoco", "threads": 1}}
    usual = vlaser_gym.evaluate("random", run="usual", **keys)
    other = vlaser_gym.evaluate("random", run="other", instruction=list(WORDS), **keys)
    records = read_records("other")
    assert [r["instruction"] for r in records] == [drawn(WORDS, Address(CARROT, layout=f"grid:{k}")) for k in range(2)]
    assert [(r["steps"], r["ending"]) for r in records] == [(2, "truncated")] * 2
    assert set(read_states(Path("other"), records[0])["instruction"].tolist()) == {records[0]["instruction"]}
    config = read_config("other")
    assert config["instruction"] == list(WORDS)
    assert config["environment_settings"][CARROT]["max_steps"] == 2
    compared = vlaser_gym.compare(usual, other)
    (against,) = compared.comparison.against
    assert against.overall.n == 2
    assert any(line.startswith("instruction differs: the tasks' own in usual") for line in against.warnings)
    assert json.loads((tmp_path / "usual/episodes.jsonl").read_text().splitlines()[0])["instruction"].startswith("put")


def test_the_original_simulator_runs_no_longer_than_it_does_by_itself() -> None:
    from vlaser_gym.evaluation.evaluator import EvalSettings

    with pytest.raises(GymError, match=r"engine=simpler ends episodes by itself after 60 control steps; got .*=61"):
        EvalSettings(task=CARROT, max_episode_steps=61, engine={"name": "simpler"})
    EvalSettings(task=CARROT, max_episode_steps=61)


def test_perturbations_of_the_benchmark_s_own_words_refuse_others() -> None:
    from vlaser_gym.evaluation.evaluator import EvalSettings

    for name in ("paraphrase", "object_colour", "unseen_object", "another_target"):
        with pytest.raises(GymError, match=f"perturb={name} changes words of the benchmark's own sentences; leave"):
            EvalSettings(task=CARROT, instruction="lay it down", perturb=name)
    EvalSettings(task=CARROT, instruction="lay it down", perturb="typos")
