from __future__ import annotations

import copy
import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_env import STEPS, FakeVectorEnv, Reacher, make_fake_env

from vlaser_gym import cli
from vlaser_gym.envs import robots, tasks
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.registration import register_task
from vlaser_gym.envs.robots import register_setup
from vlaser_gym.errors import GymError, InvalidConfigError, StorageError, UnknownNameError
from vlaser_gym.evaluation import evaluator
from vlaser_gym.evaluation.comparison import compare_runs, load_runs
from vlaser_gym.evaluation.evaluator import EvalSettings, Evaluation, evaluate
from vlaser_gym.evaluation.launchers import described
from vlaser_gym.evaluation.store import read_config, read_records, read_states, read_timing, read_training

HERE = Path(__file__).parent
BASE = ("agent._target_=fake_env.Reacher", "task=widowx_carrot_on_plate,widowx_stack_cube", "episodes=6", "trials=2")


def settings(run: Path, *overrides: str) -> EvalSettings:
    return EvalSettings.from_config(cli.load("eval", [*BASE, f"run={run}", *overrides]))


def score(run: Path, *overrides: str, **hooks: Any) -> Evaluation:
    return evaluate(settings(run, *overrides), make_env=make_fake_env, **hooks)


def test_settings_made_in_python_are_the_command_lines(tmp_path: Path) -> None:
    """No config, no Hydra: what is not said is the same default, and what is wrong the same sentence."""
    agent = {"name": "fake_env.Reacher", "_target_": "fake_env.Reacher"}
    tasks = ["widowx_carrot_on_plate", "widowx_stack_cube"]
    made = EvalSettings(agent=agent, task=tasks, episodes=6, trials=2, run=f"{tmp_path / 'python'}")
    assert made.stored() == settings(tmp_path / "python").stored()
    assert evaluate(made, make_env=make_fake_env).complete
    assert score(tmp_path / "command").complete
    assert files(tmp_path / "python") == files(tmp_path / "command")
    assert (EvalSettings().task, EvalSettings().look, len(EvalSettings().plan)) == ("widowx", "builtin", 96)
    with pytest.raises(InvalidConfigError, match=r"^episodes must be at least 1 or null; got 0\.$"):
        EvalSettings(episodes=0)
    with pytest.raises(InvalidConfigError, match=r"protocol=visual_matching fixes .* got trials=2"):
        EvalSettings(protocol="visual_matching", trials=2)


def files(run: Path) -> dict[str, bytes]:
    """Everything that must not depend on how a run came about."""
    names = ["episodes.jsonl", "summary.json", *sorted(str(p.relative_to(run)) for p in run.glob("states/*"))]
    return {name: (run / name).read_bytes() for name in names}


def test_a_run_is_complete_and_says_where_it_comes_from(tmp_path: Path) -> None:
    assert score(tmp_path / "run").complete
    records = read_records(tmp_path / "run")
    assert len(records) == 24
    first = records[0]
    assert (first["task"], first["variant"], first["layout"], first["trial"]) == (
        "widowx_carrot_on_plate",
        "default",
        "grid:0",
        0,
    )
    assert first["instruction"] == "put carrot on plate"
    assert (first["agent"], first["engine"], first["engine_version"], first["look"]) == (
        "fake_env.Reacher",
        "mujoco",
        "fake-1",
        "builtin",
    )
    assert first["steps"] == STEPS
    assert {r["success"] for r in records} == {True, False}, "the fake must produce both outcomes"
    states = read_states(tmp_path / "run", first)
    assert states["qpos"].shape == (STEPS + 1, 8)
    assert states["action"].shape == (STEPS, 7)
    config = read_config(tmp_path / "run")
    assert config["agent"]["_target_"] == "fake_env.Reacher"
    assert config["engine_version"] == "fake-1"
    assert "run" not in config


@pytest.mark.parametrize("overrides", [(), ("terminate_on_success=true",), ("layouts=region",)])
def test_same_settings_same_bytes_for_any_number_of_lanes(tmp_path: Path, overrides: tuple[str, ...]) -> None:
    runs = []
    for name, num_envs in (("a", 1), ("b", 3), ("c", 8), ("d", 8), ("e", 100)):
        score(tmp_path / name, f"num_envs={num_envs}", *overrides)
        runs.append(files(tmp_path / name))
    assert all(run == runs[0] for run in runs[1:])


def test_nothing_of_the_clock_or_the_host_is_in_the_records(tmp_path: Path) -> None:
    score(tmp_path / "run")
    for record in read_records(tmp_path / "run"):
        assert not {"time", "seconds", "host"} & set(record)
    episodes = [entry for entry in read_timing(tmp_path / "run") if entry["event"] == "episode"]
    assert len(episodes) == 24
    assert all(entry["lanes"] == 8 and entry["seconds"] >= 0 for entry in episodes)


@pytest.mark.parametrize("after", [1, 7, 23])
def test_an_interrupted_run_is_finished_by_the_same_command(tmp_path: Path, after: int) -> None:
    score(tmp_path / "whole")
    seen: list[Any] = []

    def interrupt(record: Any) -> None:
        seen.append(record)
        if len(seen) == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        score(tmp_path / "run", on_episode=interrupt)
    assert len(read_records(tmp_path / "run")) == after
    assert not (tmp_path / "run" / "summary.json").exists()
    started: list[Any] = []
    score(tmp_path / "run", "num_envs=3", on_start=lambda *args: started.append(args))
    assert started == [(tmp_path / "run", after, 24)]
    assert files(tmp_path / "run") == files(tmp_path / "whole")


SLOW_RUN = """
import sys, time
sys.path.insert(0, sys.argv[1])
import fake_env, test_evaluator
from pathlib import Path
step = fake_env.FakeVectorEnv.step_chunk
fake_env.FakeVectorEnv.step_chunk = lambda *args: (time.sleep(0.005), step(*args))[1]
test_evaluator.score(Path(sys.argv[2]))
"""


def test_a_preset_that_means_less_than_it_did(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run of all that it meant stays readable; it is not continued as if it had meant something else."""
    monkeypatch.setitem(tasks.PRESETS, "widowx", ("widowx_carrot_on_plate", "widowx_stack_cube"))
    score(tmp_path / "old", "task=widowx")
    score(tmp_path / "part", "task=widowx", plan=settings(tmp_path, "task=widowx_carrot_on_plate").plan)
    before = files(tmp_path / "old")
    monkeypatch.setitem(tasks.PRESETS, "widowx", ("widowx_carrot_on_plate",))
    with pytest.raises(
        StorageError, match=r"holds 12 episodes .* such as widowx_stack_cube/default/grid:0/0: the preset"
    ):
        score(tmp_path / "old", "task=widowx")
    assert files(tmp_path / "old") == before
    two = compare_runs(load_runs([tmp_path / "old", tmp_path / "part"])).against[0]
    assert (two.unpaired, two.overall.n, two.overall.difference) == ((12, 0), 12, 0)
    assert score(tmp_path / "part", "task=widowx").episodes == 0


@pytest.mark.parametrize("episodes", [1, 10])
def test_a_killed_run_is_finished_by_the_same_command(tmp_path: Path, episodes: int) -> None:
    score(tmp_path / "whole")
    run = tmp_path / "run"
    process = subprocess.Popen([sys.executable, "-c", SLOW_RUN, str(HERE), str(run)])
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline and process.poll() is None:
        log = run / "episodes.jsonl"
        if log.exists() and log.read_bytes().count(b"\n") >= episodes:
            break
        time.sleep(0.001)
    process.kill()
    assert process.wait() == -signal.SIGKILL, "it should have been killed on its way"
    assert not (run / "summary.json").exists()
    score(run)
    assert files(run) == files(tmp_path / "whole")


def test_a_finished_run_is_not_run_again(tmp_path: Path) -> None:
    score(tmp_path / "run")
    before = files(tmp_path / "run")
    assert score(tmp_path / "run", on_episode=lambda record: pytest.fail("ran again")).complete
    assert files(tmp_path / "run") == before


def test_a_changed_setting_is_refused_with_the_difference(tmp_path: Path) -> None:
    score(tmp_path / "run")
    before = files(tmp_path / "run")
    with pytest.raises(StorageError, match=r"agent\.noise was not set, now 0\.5; trials was 2, now 3"):
        score(tmp_path / "run", "trials=3", "agent.noise=0.5")
    assert files(tmp_path / "run") == before


def test_another_engine_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score(tmp_path / "run")
    init = FakeVectorEnv.__init__

    def newer(self: Any, *args: Any) -> None:
        init(self, *args)
        self.engine.version = "fake-2"

    monkeypatch.setattr(FakeVectorEnv, "__init__", newer)
    with pytest.raises(StorageError, match="engine_version was 'fake-1', now 'fake-2'"):
        score(tmp_path / "run")


def test_a_time_budget_stops_cleanly_and_goes_on_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    score(tmp_path / "whole")
    clock = iter(np.arange(0.0, 1e6, 10.0))
    with monkeypatch.context() as patch:
        patch.setattr(evaluator.time, "monotonic", lambda: next(clock))
        assert not score(tmp_path / "run", "max_minutes=1", "num_envs=3").complete
    stored = read_records(tmp_path / "run")
    assert 0 < len(stored) < 24
    assert len(stored) % 3 == 0, "what had begun was finished"
    assert not (tmp_path / "run" / "summary.json").exists()
    assert score(tmp_path / "run").complete
    assert files(tmp_path / "run") == files(tmp_path / "whole")


CRASHING = "engine.crash_on=[widowx_stack_cube/default/grid:1/0,widowx_stack_cube/default/grid:3/1]"


@pytest.mark.parametrize("num_envs", [1, 3, 8])
def test_a_crash_of_the_simulator_costs_its_episode_only(tmp_path: Path, num_envs: int) -> None:
    score(tmp_path / "whole")
    whole = {(r["task"], r["layout"], r["trial"]): r for r in read_records(tmp_path / "whole")}
    score(tmp_path / "run", CRASHING, f"num_envs={num_envs}")
    records = read_records(tmp_path / "run")
    assert len(records) == 24, "no episode leaves the denominator"
    failed = [r for r in records if r["error"]]
    assert [(r["task"], r["layout"], r["trial"]) for r in failed] == [
        ("widowx_stack_cube", "grid:1", 0),
        ("widowx_stack_cube", "grid:3", 1),
    ]
    assert all(r["ending"] == "error" and not r["success"] and r["states"] is None for r in failed)
    assert "the point diverged" in failed[0]["error"]
    for r in records:
        if not r["error"]:
            assert r == whole[r["task"], r["layout"], r["trial"]]
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    cubes = summary["tasks"][1]
    assert (cubes["task"], cubes["n"], cubes["errors"]) == ("widowx_stack_cube", 12, 2)


def test_environments_are_closed(tmp_path: Path) -> None:
    made: list[FakeVectorEnv] = []

    def make_env(*args: Any) -> FakeVectorEnv:
        made.append(make_fake_env(*args))
        return made[-1]

    evaluate(settings(tmp_path / "run", CRASHING), make_env=make_env)
    assert len(made) > 3
    assert all(env.closed for env in made)


@pytest.mark.parametrize(
    ("overrides", "error", "message"),
    [
        (["num_envs=0"], InvalidConfigError, "num_envs must be at least 1; got 0"),
        (["num_envs=-3"], InvalidConfigError, "num_envs must be at least 1; got -3"),
        (["num_envs=many"], InvalidConfigError, "num_envs has a wrong value: Value 'many'"),
        (["num_envs=2.5"], InvalidConfigError, "num_envs has a wrong value"),
        (["num_envs=null"], InvalidConfigError, "num_envs has a wrong value"),
        (["episodes=0"], InvalidConfigError, "episodes must be at least 1 or null; got 0"),
        (["trials=0"], InvalidConfigError, "trials must be at least 1; got 0"),
        (["video=-1"], InvalidConfigError, "video must be at least 0; got -1"),
        (["max_minutes=0"], InvalidConfigError, "max_minutes must be above 0"),
        (["agent_timeout=0"], InvalidConfigError, "agent_timeout must be above 0"),
        (["engine.threads=abc"], InvalidConfigError, "engine.threads must be a whole number from 0 on; got 'abc'"),
        (["episodes=1000000000000"], InvalidConfigError, "at most 1000000 episodes"),
        (["max_minutes=nan"], InvalidConfigError, "max_minutes must be above 0"),
        (["task=widowx_carot_on_plate"], UnknownNameError, "nearest: widowx_carrot_on_plate"),
        (["task=[]"], UnknownNameError, "task"),
        (["task=3"], UnknownNameError, "task"),
        (["++task={a:1}"], InvalidConfigError, "task={a:1}"),
        (["task=widowx,widowx_stack_cub"], UnknownNameError, "widowx_stack_cube"),
        (["engine=mujco"], UnknownNameError, "nearest: mujoco"),
        (["engine.name=mojuco"], UnknownNameError, "nearest: mujoco"),
        (["look=bultin"], UnknownNameError, "nearest: builtin"),
        (["agent=exprt"], UnknownNameError, "nearest: expert"),
        (["agent._target_=no_such_package.Agent"], InvalidConfigError, "importable class"),
        (["agent.nois=1"], UnknownNameError, "nearest: noise"),
        (["checkpoint=x"], UnknownNameError, "'checkpoint'"),
        (["layouts=gird"], UnknownNameError, "grid"),
        (["engine=simpler", "layouts=region"], InvalidConfigError, "choose layouts=grid"),
        (["engine=simpler", "layouts=grid_and_region", "episodes=25"], InvalidConfigError, "choose layouts=grid"),
        (["variant=dark"], UnknownNameError, "default"),
        (["epsiodes=3"], UnknownNameError, "nearest: episodes"),
        (["run=/proc/nowhere/run"], StorageError, "Cannot use the run directory"),
        (["run=FILE/run"], StorageError, "Cannot use the run directory"),
    ],
)
def test_bad_settings_are_one_sentence_and_leave_nothing(
    tmp_path: Path, overrides: list[str], error: type[GymError], message: str
) -> None:
    (tmp_path / "file").write_text("not a folder")
    overrides = [text.replace("FILE", str(tmp_path / "file")) for text in overrides]
    with pytest.raises(error) as caught:
        score(tmp_path / "run", *overrides)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_robots_do_not_mix_unless_a_preset_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A second robot is pretended: a cube's setup belongs to somebody else."""
    setup = robots.get_setup("widowx")
    monkeypatch.setattr(robots, "_ADDED", {})
    monkeypatch.setattr(tasks, "_ADDED", {})
    register_setup(replace(setup, name="elsewhere", robot=replace(setup.robot, name="google_robot")))
    cube = copy.copy(tasks.get_task("widowx_stack_cube"))
    cube.name, cube.robot_setup = "cube_elsewhere", "elsewhere"
    monkeypatch.setitem(tasks.PRESETS, "everywhere", ("widowx_carrot_on_plate", register_task(cube).name))
    with pytest.raises(InvalidConfigError, match=r"share a robot; got .*google_robot: cube_elsewhere"):
        score(tmp_path / "run", "task=widowx_carrot_on_plate,cube_elsewhere")
    assert not list(tmp_path.iterdir())

    together: list[list[str]] = []

    def make_env(settings: Any, names: Any, *rest: Any) -> FakeVectorEnv:
        together.append(list(names))
        return make_fake_env(settings, names, *rest)

    evaluate(settings(tmp_path / "run", "task=everywhere"), make_env=make_env)
    assert len(read_records(tmp_path / "run")) == 2 * 12
    assert ["cube_elsewhere"] in together
    assert not any("cube_elsewhere" in names and len(names) > 1 for names in together)


def test_a_task_of_ones_own_is_named_by_where_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its records have the name that it has itself; whoever reads the run imports it again."""
    (tmp_path / "tasks_of_mine.py").write_text(
        "import copy\nfrom vlaser_gym.envs.tasks import get_task\n"
        "flat = copy.copy(get_task('widowx_stack_cube'))\nflat.name = 'flat_cube'\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(tasks, "_ADDED", {})
    score(tmp_path / "run", "task=tasks_of_mine:flat", "episodes=2")
    assert {record["task"] for record in read_records(tmp_path / "run")} == {"flat_cube"}
    assert "flat_cube" not in tasks.resolve("widowx")
    monkeypatch.setattr(tasks, "_ADDED", {})  # as in another process
    assert len(read_records(tmp_path / "run")) == 4
    assert tasks.get_task("flat_cube").name == "flat_cube"
    with pytest.raises(InvalidConfigError, match="task must be importable, as module:name; got 'tasks_of_mine:round'"):
        score(tmp_path / "other", "task=tasks_of_mine:round")
    assert not (tmp_path / "other").exists()


def test_a_new_directory_is_named_after_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = cli.load("eval", ["agent=random", "task=widowx_stack_cube"])
    path = EvalSettings.from_config(config).run_directory()
    assert path.parent == Path("runs")
    assert path.name.startswith("widowx_stack_cube-random-mujoco-2")


def test_what_an_agent_tells_of_itself_is_kept_with_the_run() -> None:
    class Told:
        observes = ()

        def describe(self) -> dict[str, int]:
            return {"act_steps": 4}

    assert described(Told()) == {"act_steps": 4}
    assert described(object()) == {}


class Telling(Reacher):
    """Keeps what it decided by."""

    def act(self, observations: Any, lanes: np.ndarray) -> np.ndarray:
        actions = super().act(observations, lanes)
        self.rows = {
            int(lane): {"chunk": chunk, "seen": o}
            for lane, chunk, o in zip(lanes, actions, observations["proprio"], strict=True)
        }
        return actions

    def decided(self, lanes: np.ndarray) -> list[dict[str, np.ndarray]]:
        return [self.rows[int(lane)] for lane in lanes]


def test_what_learners_need_is_stored_on_request(tmp_path: Path) -> None:
    telling = ("agent._target_=test_evaluator.Telling", "store=training")
    score(tmp_path / "whole", *telling)
    run = tmp_path / "run"
    score(run, *telling, "num_envs=3")
    record = read_records(run)[5]
    arrays, states = read_training(run, record), read_states(run, record)
    steps = states["decision"]
    assert arrays["chunk"].shape == (len(steps), 3, 7)
    executed = arrays["chunk"].reshape(-1, 7)[:STEPS]
    np.testing.assert_array_equal(executed, states["action"])
    np.testing.assert_allclose(arrays["seen"][:, :3], states["qpos"][steps, :3], atol=1e-6)
    trainings = {
        name: (run / "training" / name).read_bytes() for name in sorted(p.name for p in run.glob("training/*"))
    }
    assert len(trainings) == 24
    assert all((tmp_path / "whole/training" / name).read_bytes() == data for name, data in trainings.items())
    # An episode whose arrays are gone is repeated.
    (run / record["training"]).unlink()
    again: list[Any] = []
    score(run, *telling, on_episode=again.append)
    assert [r["training"] for r in again] == [record["training"]]
    assert (run / record["training"]).read_bytes() == trainings[Path(record["training"]).name]
    with pytest.raises(StorageError, match="store was 'training', now 'states'"):
        score(run, telling[0])
    plain = tmp_path / "plain"
    score(plain)
    with pytest.raises(StorageError, match="repeat it with store=training"):
        read_training(plain, read_records(plain)[0])


def test_agents_that_do_not_learn_have_nothing_to_store(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfigError, match="needs an agent that learns"):
        score(tmp_path / "run", "store=training")
    with pytest.raises(UnknownNameError, match="training"):
        settings(tmp_path / "run", "store=everything")
    assert not list(tmp_path.iterdir())


def test_episodes_and_agent_may_come_from_elsewhere(tmp_path: Path) -> None:
    plan = [Address("widowx_stack_cube", layout=f"region:{k}", trial=k) for k in (5, 9)]
    agent = Telling()
    assert score(tmp_path / "run", "store=training", plan=plan, agent=agent).complete
    assert [r["layout"] for r in read_records(tmp_path / "run")] == ["region:5", "region:9"]
    assert agent.seen
