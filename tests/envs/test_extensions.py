"""Tasks and robots of one's own: known to environments, to Gymnasium, and to the processes that draw."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from vlaser_gym.envs import robots, tasks
from vlaser_gym.envs.extensions import Extensions, unpack
from vlaser_gym.envs.registration import register_task
from vlaser_gym.envs.robots import Camera, get_setup, register_setup
from vlaser_gym.envs.robots.widowx import TABLE_SETUP
from vlaser_gym.envs.tasks import PRESETS, get_task, objects, resolve, task_names, widowx
from vlaser_gym.envs.tasks.put_on import PutOnTask
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError

#: A user's file: the carrot onto the towel, places as the benchmark has them for the plate.
FILE = """
from vlaser_gym.envs.tasks import objects, widowx
from vlaser_gym.envs.tasks.put_on import PutOnTask

class CarrotOnTowel(PutOnTask):
    pass

def made(name="carrot_on_towel"):
    region = widowx.TASKS[0].region()
    return CarrotOnTowel(name, "put the carrot on the towel", (objects.CARROT, objects.CLOTH), region)

task = made()
number = 5
"""


@pytest.fixture(autouse=True)
def nothing_added(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tasks, "_ADDED", {})
    monkeypatch.setattr(robots, "_ADDED", {})
    before = set(gymnasium.registry)
    yield
    for identifier in set(gymnasium.registry) - before:
        del gymnasium.registry[identifier]


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of a module ``my_tasks``, which is importable here."""
    (tmp_path / "my_tasks.py").write_text(FILE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "my_tasks", raising=False)
    return tmp_path


def made(name: str = "carrot_on_towel", **changes: Any) -> PutOnTask:
    region = widowx.TASKS[0].region()
    return PutOnTask(name, "put the carrot on the towel", (objects.CARROT, objects.CLOTH), region, **changes)


def test_an_environment_takes_a_task_itself() -> None:
    task = made()
    env = SceneVectorEnv([task, "widowx_carrot_on_plate"], 2, observe=("instruction", "state"))
    observation, _ = env.reset(options={"layout": 4})
    assert observation["instruction"] == ("put the carrot on the towel", "put carrot on plate")
    # The same places, on another target.
    assert np.array_equal(observation["state"][0, 8:22], observation["state"][1, 8:22])
    assert env.addresses[0].task == "carrot_on_towel"
    assert get_task("carrot_on_towel") is task
    env.close()


def test_registered_it_has_a_gymnasium_id_and_is_in_no_preset() -> None:
    before = dict(PRESETS)
    assert register_task(made()) is get_task("carrot_on_towel")
    env = gymnasium.make("vlaser_gym/carrot_on_towel", observe=("instruction",))
    observation, _ = env.reset(options={"layout": 0})
    assert observation["instruction"] == "put the carrot on the towel"
    env.close()
    assert before == PRESETS
    assert "carrot_on_towel" not in resolve("widowx")
    assert "carrot_on_towel" in task_names()
    again = made(max_steps=7)
    assert get_task(register_task(again).name) is again, "the last one registered counts"


def test_a_module_s_object_is_a_task_too(file: Path) -> None:
    assert resolve(" my_tasks:task , widowx_stack_cube") == ("carrot_on_towel", "widowx_stack_cube")
    assert get_task("carrot_on_towel") is get_task("my_tasks:task")


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("my_tasks:tsak", "task must be importable, as module:name; got 'my_tasks:tsak'"),
        ("no_tasks:task", "task must be importable, as module:name; got 'no_tasks:task'"),
        ("my_tasks:number", "Expected an object of a subclass of Task; got int: 5"),
        ("my_tasks:made", "Expected an object of a subclass of Task; got function"),
    ],
)
def test_what_is_no_task_is_one_sentence(file: Path, spec: str, sentence: str) -> None:
    with pytest.raises(GymError, match=sentence) as error:
        resolve(spec)
    assert "\n" not in str(error.value)
    assert not tasks.added_tasks()


@pytest.mark.parametrize(
    ("task", "sentence"),
    [
        (lambda: made("widowx_stack_cube"), "The task 'widowx_stack_cube' is the gym's own: give yours another name"),
        (lambda: made("widowx"), "The task 'widowx' is the gym's own"),
        (lambda: made("carrot/on/towel"), "letters, digits, underscores, hyphens and dots; got 'carrot/on/towel'"),
        (lambda: made(robot_setup="widwx"), "Unknown robot setup 'widwx'.*nearest: widowx"),
        (lambda: PutOnTask, "Expected an object of a subclass of Task; got ABCMeta"),
    ],
)
def test_tasks_that_cannot_be_registered(task: Any, sentence: str) -> None:
    with pytest.raises(GymError, match=sentence) as error:
        register_task(task())
    assert "\n" not in str(error.value)
    assert not tasks.added_tasks()


def test_processes_that_draw_know_tasks_and_robots_of_a_user_s_file(file: Path) -> None:
    """Also those that are registered when the processes run already; a camera is declared once and observed."""
    side = Camera("side_camera", "base_link", 96, 64, 50.0, 48.0, 32.0, 0.01, 10.0, (0, -0.4, 0.3, 1, 0, 0, 0))
    setup = replace(TABLE_SETUP, name="watched", cameras={**TABLE_SETUP.cameras, "side": side})
    register_setup(setup)
    watched = made("watched_carrot_on_towel", robot_setup="watched")
    env = SceneVectorEnv([watched, get_task("my_tasks:task")], 1, observe=("wrist_image",),
                         engine_options={"render_processes": 1})  # fmt: skip
    first, _ = env.reset(options={"layout": 0, "task": "watched_carrot_on_towel"})
    other, _ = env.reset(options={"layout": 0, "task": "carrot_on_towel"})
    assert first["wrist_image"].std() > 10
    assert np.array_equal(first["wrist_image"], other["wrist_image"]), "two robots alike, on the same scene"
    register_setup(replace(setup, name="later"))
    late = made("late_carrot_on_towel", robot_setup="later")
    env.engine.place([0], [replace(env_placement(env), task=tasks.add_task(late))])
    assert np.array_equal(env.engine.images(np.array([0]), "wrist"), first["wrist_image"])
    assert env.engine.images(np.array([0]), "side").shape == (1, 64, 96, 3)
    assert np.array_equal(env.engine.images(np.array([0]), "wrist"), first["wrist_image"]), "sizes alternate"
    env.close()
    with pytest.raises(GymError, match=r"Unknown observation 'side_image'"):
        SceneVectorEnv([watched, "widowx_stack_cube"], observe="side_image")  # the other has no such camera


def env_placement(env: SceneVectorEnv) -> Any:
    """The placement of environment 0 again."""
    from vlaser_gym.envs.engines import Placement

    lane = env.lanes[0]
    return Placement(lane.task, "default", lane.layout, np.array(get_setup(lane.task.robot_setup).qpos))


def test_what_is_sent_arrives_in_a_process_that_knows_nothing_of_it(file: Path) -> None:
    """From a script too, whose own classes no other process can import."""
    script = textwrap.dedent("""
        import subprocess, sys
        sys.path.insert(0, sys.argv[1])
        from my_tasks import CarrotOnTowel, made
        from vlaser_gym.envs.extensions import Extensions
        from vlaser_gym.envs.registration import register_task
        class Here(CarrotOnTowel):
            max_steps_of_mine = 11
        task = made("mine"); task.__class__ = Here
        register_task(task)
        child = "import sys; from vlaser_gym.envs.extensions import unpack; unpack(sys.stdin.buffer.read()); " \\
            "from vlaser_gym.envs.tasks import get_task; print(get_task('mine').max_steps_of_mine)"
        subprocess.run([sys.executable, "-c", child], input=Extensions.here().packed(), check=True)
    """)
    (file / "script.py").write_text(script)
    said = subprocess.run([sys.executable, file / "script.py", file], stdout=-1, check=True, text=True).stdout
    assert said.split() == ["11"]


def test_what_cannot_be_sent_is_one_sentence() -> None:
    task = made()
    task.file = (line for line in ())  # type: ignore[attr-defined]
    register_task(task)
    with pytest.raises(GymError, match="PutOnTask 'carrot_on_towel' must consist of what can be pickled") as error:
        Extensions.here().packed()
    assert "\n" not in str(error.value)


def test_sent_back_and_forth_nothing_changes() -> None:
    register_task(made())
    before = Extensions.here()
    assert before.are(Extensions.here())
    data = before.packed()
    unpack(data)
    assert not before.are(Extensions.here()), "another object with the same contents"
    assert get_task("carrot_on_towel").instruction("grid:0") == "put the carrot on the towel"
