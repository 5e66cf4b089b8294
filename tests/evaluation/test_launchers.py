"""Records do not depend on who ran the episodes. Those with a Ray cluster take a while to start."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from fake_env import FakeVectorEnv, make_fake_env
from test_evaluator import CRASHING, files, score, settings

from vlaser_gym import cli
from vlaser_gym.envs import tasks as envs_tasks
from vlaser_gym.envs.extensions import Extensions
from vlaser_gym.envs.registration import register_task
from vlaser_gym.errors import AgentError, GymError, GymWarning, InvalidConfigError
from vlaser_gym.evaluation.evaluator import EvalSettings, evaluate
from vlaser_gym.evaluation.launchers import Interruption, LocalLauncher, RayLauncher, _Worker
from vlaser_gym.evaluation.plan import plan_episodes
from vlaser_gym.evaluation.store import read_records
from vlaser_gym.registry import import_extra

MANY = ("episodes=24", "trials=3")


def test_a_worker_knows_tasks_that_were_registered_where_it_was_hired(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By what Ray gives a worker's constructor, here called in a process that has forgotten the task."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(envs_tasks, "_ADDED", {})
    mine = copy.copy(envs_tasks.get_task("widowx_stack_cube"))
    mine.name = "cube_of_mine"
    register_task(mine)
    extensions = Extensions.here().packed()
    pickled = pickle.dumps((settings(tmp_path, "task=cube_of_mine"), make_fake_env))
    monkeypatch.setattr(envs_tasks, "_ADDED", {})
    worker = _Worker([str(tmp_path)], extensions, pickled)
    assert worker.introduce(["cube_of_mine"]).origin["agent"] == "fake_env.Reacher"
    plan = plan_episodes([envs_tasks.get_task("cube_of_mine")], episodes=2, trials=1)
    assert [result.address.task for result in worker.run(plan, ["cube_of_mine"], 2)] == ["cube_of_mine"] * 2


def test_shards_here_leave_the_same_results_as_all_at_once(tmp_path: Path) -> None:
    """What a worker does: shard after shard with one environment, the last one smaller than the environments."""
    mine = settings(tmp_path)
    plan = plan_episodes(mine.tasks, episodes=6, trials=2)
    tasks = [task.name for task in mine.tasks]
    made: list[FakeVectorEnv] = []

    def make_env(*args: Any) -> FakeVectorEnv:
        made.append(make_fake_env(*args))
        return made[-1]

    whole = {r.address: r for r in LocalLauncher(mine, make_fake_env).run(plan, tasks, 4, lambda: False)}
    launcher = LocalLauncher(mine, make_env)
    shards = [plan[:10], plan[10:14], plan[14:23], plan[23:]]
    results = [r for shard in shards for r in launcher.run(shard, tasks, 4, lambda: False)]
    launcher.close()
    assert [len(made), made[0].closed] == [1, True]
    assert sorted(map(str, whole)) == sorted(str(r.address) for r in results)
    for r in results:
        assert not isinstance(r, Interruption)
        assert r.trajectory["qpos"].tobytes() == whole[r.address].trajectory["qpos"].tobytes()
        assert (r.success, r.steps) == (whole[r.address].success, whole[r.address].steps)


def test_an_interruption_names_what_ran_and_what_waited(tmp_path: Path) -> None:
    mine = settings(tmp_path, CRASHING)
    plan = plan_episodes(mine.tasks, episodes=6, trials=2)
    launcher = LocalLauncher(mine, make_fake_env)
    *results, last = launcher.run(plan, [task.name for task in mine.tasks], 4, lambda: False)
    assert isinstance(last, Interruption)
    assert "widowx_stack_cube/default/grid:1/0" in map(str, last.running)
    assert last.error == "the point diverged"
    everything = [*map(str, (r.address for r in results)), *map(str, last.running), *map(str, last.waiting)]
    assert sorted(everything) == sorted(map(str, plan))


def test_bad_launchers_are_one_sentence() -> None:
    with pytest.raises(GymError, match="nearest: ray"):
        cli.load("eval", ["launcher=rai"])
    with pytest.raises(GymError, match=r"launcher\.worker'"):
        cli.load("eval", ["launcher=ray", "launcher.worker=3"])
    for override, key in (("launcher.workers=0", "workers"), ("launcher.cpus=0", "cpus"), ("launcher.gpus=-1", "gpus")):
        with pytest.raises(InvalidConfigError, match=f"launcher.{key}"):
            EvalSettings.from_config(cli.load("eval", ["launcher=ray", override]))


def test_without_ray_it_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    with pytest.raises(InvalidConfigError, match="pip install"):
        import_extra("ray", "launcher=ray needs Ray", "ray")


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine; the head has room for one worker."""
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    nodes.connect()
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def with_ray(run: Path, *overrides: str, **hooks: Any) -> None:
    score(run, "launcher=ray", "num_envs=4", *overrides, **hooks)


@pytest.mark.slow
def test_any_number_of_workers_leaves_the_same_bytes(tmp_path: Path, cluster: Any) -> None:
    more = cluster.add_node(num_cpus=2)
    score(tmp_path / "here", *MANY)
    for workers in (1, 3):
        with_ray(tmp_path / str(workers), *MANY, f"launcher.workers={workers}")
        assert files(tmp_path / str(workers)) == files(tmp_path / "here")
    cluster.remove_node(more)


@pytest.mark.slow
def test_simulator_failures_on_workers_count_once(tmp_path: Path, cluster: Any) -> None:
    score(tmp_path / "here", CRASHING)
    with_ray(tmp_path / "there", CRASHING, "launcher.workers=1")
    assert files(tmp_path / "there") == files(tmp_path / "here")


@pytest.mark.slow
def test_a_failing_agent_is_one_sentence(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(GymError, match=r"RandomAgent needs horizon >= 1"):
        with_ray(
            tmp_path / "run", "agent=random", "agent._target_=vlaser_gym.agents.random.RandomAgent", "agent.horizon=0"
        )
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_what_an_agent_raises_there_comes_back_with_its_traceback(tmp_path: Path, cluster: Any) -> None:
    with pytest.raises(AgentError, match=r"fake_env\.Reacher\.act raised TypeError") as caught:
        with_ray(tmp_path / "run", "agent.noise=null")
    assert "in act" in caught.value.trace
    assert "\n" not in str(caught.value)


def make_slow_env(*args: Any) -> FakeVectorEnv:
    env = make_fake_env(*args)
    step = env.step_chunk
    env.step_chunk = lambda actions: (time.sleep(0.05), step(actions))[1]  # type: ignore[method-assign]
    return env


@pytest.mark.slow
def test_a_node_that_dies_loses_nothing_and_counts_nothing_twice(
    tmp_path: Path, cluster: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    score(tmp_path / "here", *MANY)
    doomed = cluster.add_node(num_cpus=1)  # two nodes with room for one worker each
    seen: list[Any] = []
    lost: list[int] = []
    replace = RayLauncher._replace

    def note(self: RayLauncher, member: Any, error: Exception) -> None:
        lost.append(len(member.shard))
        replace(self, member, error)

    monkeypatch.setattr(RayLauncher, "_replace", note)

    def kill(record: Any) -> None:
        seen.append(record)
        if len(seen) == 30:
            cluster.remove_node(doomed, allow_graceful=False)

    mine = settings(tmp_path / "there", *MANY, "launcher=ray", "num_envs=4", "launcher.workers=2")
    assert evaluate(mine, make_env=make_slow_env, on_episode=kill).complete
    assert len(seen) == len(read_records(tmp_path / "there")) == 144
    assert len(lost) == 1
    assert lost[0] > 0, "the node died with episodes under way"
    assert files(tmp_path / "there") == files(tmp_path / "here")


LISTENING = """
import psutil
from vlaser_gym.cli import load
from vlaser_gym.evaluation.evaluator import EvalSettings, make_scene_env
from vlaser_gym.evaluation.launchers import RayLauncher
config = load("eval", ["agent=random", "task=widowx_stack_cube", "launcher=ray", "launcher.workers=1"])
launcher = RayLauncher(EvalSettings.from_config(config), make_scene_env)
for process in [psutil.Process(), *psutil.Process().children(recursive=True)]:
    for connection in process.net_connections("inet"):
        if connection.status == "LISTEN":
            print(connection.laddr.ip)
launcher.close()
"""


@pytest.mark.slow
def test_a_cluster_of_our_own_listens_at_loopback_alone() -> None:
    pytest.importorskip("ray")
    pytest.importorskip("psutil")
    done = subprocess.run([sys.executable, "-c", LISTENING], capture_output=True, text=True, timeout=200, check=True)
    addresses = set(done.stdout.split())
    assert addresses, "Ray listens somewhere"
    assert all(ip_address(text.removeprefix("::ffff:")).is_loopback for text in addresses), addresses


@pytest.mark.parametrize("mode", [None, "token"])
def test_a_cluster_that_is_there_already_says_what_it_exposes(
    monkeypatch: pytest.MonkeyPatch, mode: str | None
) -> None:
    class Ray:
        """As much of Ray as joining a cluster needs."""

        @staticmethod
        def init(**options: Any) -> None:
            assert options["address"] == "10.0.0.1:6379"

    launcher = object.__new__(RayLauncher)
    launcher.ray, launcher.options = Ray, {"address": "10.0.0.1:6379"}
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode is None:
        with pytest.warns(GymWarning, match=r"10\.0\.0\.1:6379 asks for no token: whoever reaches its ports can run"):
            launcher._connect()
    else:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            launcher._connect()
