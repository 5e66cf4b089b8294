"""Tasks from a YAML file: what they consist of is recomputed from the file and from the catalogue's own numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

import vlaser_gym
from vlaser_gym.conventions.rotations import heading
from vlaser_gym.envs import tasks
from vlaser_gym.envs.extensions import Extensions
from vlaser_gym.envs.tasks import get_task, objects, resolve, settled, task_names
from vlaser_gym.envs.tasks.base import Snapshot
from vlaser_gym.errors import GymError

SPOON = """
instruction: [put the spoon on the plate, lay the spoon onto the dish]
source: spoon
target: plate
relation: over
region:
  source: {x: [-0.2, -0.1], y: [-0.1, 0.0], yaw: [10, 40]}
  clearance: 0.05
grid: 5
max_steps: 70
"""


@pytest.fixture(autouse=True)
def nothing_added(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(tasks, "_ADDED", {})
    monkeypatch.chdir(tmp_path)
    (tmp_path / "spoon_on_plate.yaml").write_text(SPOON)


def test_a_task_of_parts_has_them() -> None:
    task = get_task("spoon_on_plate.yaml")
    assert (task.name, task.num_layouts, task.max_steps) == ("spoon_on_plate", 5, 70)
    assert task.objects == (objects.SPOON, objects.PLATE)
    assert (task.z_margin, task.completely_on) == (0.02, False)
    assert resolve("spoon_on_plate.yaml,widowx_stack_cube") == ("spoon_on_plate", "widowx_stack_cube")
    assert "spoon_on_plate" in task_names()


def test_the_same_file_is_the_same_object_and_a_changed_one_another(tmp_path: Path) -> None:
    """Other processes are sent a task once, as long as it is the same."""
    first = get_task("spoon_on_plate.yaml")
    before = Extensions.here()
    assert get_task(str(tmp_path / "spoon_on_plate.yaml")) is first
    assert before.are(Extensions.here())
    (tmp_path / "spoon_on_plate.yaml").write_text(SPOON.replace("grid: 5", "grid: 6"))
    changed = get_task("spoon_on_plate.yaml")
    assert changed.num_layouts == 6
    assert changed.definition != first.definition


def test_layouts_lie_where_the_file_says_and_rest_as_on_the_benchmark_s_table() -> None:
    task = get_task("spoon_on_plate.yaml")
    for name in [f"grid:{k}" for k in range(5)] + [f"{kind}:{k}" for kind in ("region", "region2") for k in range(20)]:
        spoon, plate = task.layout(name).object_pose
        assert -0.2 <= spoon[0] <= -0.1
        assert -0.1 <= spoon[1] <= 0.0
        assert 10 <= np.rad2deg(heading(spoon[3:])) <= 40
        assert spoon[2] == pytest.approx(settled.SPOON[0, 2])
        assert plate[2] == pytest.approx(settled.PLATE[0, 2])
        # Round plate of 55 mm, spoon 68 to 73 mm to its ends and 18 mm wide: centres are at least this far apart.
        assert np.hypot(*(spoon - plate)[:2]) > 0.055 + 0.018 + 0.05 - 0.002
    told = {task.instruction(f"grid:{k}") for k in range(5)} | {task.instruction(f"region:{k}") for k in range(9)}
    assert told == {"put the spoon on the plate", "lay the spoon onto the dish"}


@pytest.mark.parametrize(
    ("relation", "height", "success"), [("over", 0.03, True), ("over", 0.06, False), ("into", 0.06, True)]
)
def test_a_relation_is_a_slack_of_the_height(relation: str, height: float, success: bool, tmp_path: Path) -> None:
    """Spoon 26 mm thick and plate 6 mm: centres up to 16 mm apart plus 20 mm over the plate, plus 60 mm in it."""
    (tmp_path / "task.yaml").write_text(SPOON.replace("relation: over", f"relation: {relation}"))
    task = get_task("task.yaml")
    layout = task.layout("grid:0")
    memory = task.begin([layout])
    poses = layout.object_pose[None].copy()
    spoon, plate = (np.array(body.com) for body in task.objects)
    # Upright headings do not matter here: the spoon is put unturned over the plate's centre.
    poses[0, 0] = [*(poses[0, 1, :3] + plate - spoon + [0, 0, height]), 1, 0, 0, 0]
    poses[0, 1, 3:] = [1, 0, 0, 0]
    link = {name: np.tile([0.0, 0, 0, 1, 0, 0, 0], (1, 1)) for name in ("left_finger_link", "right_finger_link")}
    flags, _ = task.evaluate(Snapshot(poses, link, np.zeros((1, len(task.contacts), 3))), memory)
    assert bool(flags["success"][0]) is success


def test_onto_needs_that_nothing_else_is_touched(tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(SPOON.replace("relation: over", "relation: onto"))
    assert [query.by for query in get_task("task.yaml").contacts[2:]] == ["scene"]


def test_another_task_with_own_layouts_words_and_limit(tmp_path: Path) -> None:
    (tmp_path / "poses.json").write_text(
        json.dumps([{"source": [-0.1, -0.05, 90], "target": [-0.2, 0.06, 0]},
                    {"source": [-0.12, 0.05, 0.9, 2, 0, 0, 0], "target": [-0.2, -0.06, 10]}])
    )  # fmt: skip
    (tmp_path / "corner.yaml").write_text(
        "like: widowx_carrot_on_plate\nname: carrot_in_the_corner\nlayouts: poses.json\nmax_steps: 75\n"
    )
    task, base = get_task("corner.yaml"), get_task("widowx_carrot_on_plate")
    assert (task.name, task.num_layouts, task.max_steps, base.max_steps) == ("carrot_in_the_corner", 2, 75, 60)
    assert task.instruction("grid:1") == base.instruction("grid:1")
    carrot, plate = task.layout("grid:0").object_pose
    assert carrot[:3] == pytest.approx([-0.1, -0.05, settled.CARROT[0, 2]])
    assert np.rad2deg(heading(carrot[3:])) == pytest.approx(90)
    assert plate == pytest.approx([-0.2, 0.06, settled.PLATE[0, 2], 1, 0, 0, 0])
    # A whole pose is taken as it is, its quaternion made a unit one.
    assert task.layout("grid:1").object_pose[0] == pytest.approx([-0.12, 0.05, 0.9, 1, 0, 0, 0])
    assert (task.z_margin, task.completely_on) == (base.z_margin, base.completely_on)
    assert len(task.contacts) == len(base.contacts)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("colour: red", "Unknown key of the task .*'colour'"),
        ("source: spoon\ntarget: plate", "needs instruction:"),
        ("source: fork\ntarget: plate\ninstruction: x", "Unknown source of the task .*'fork'.*nearest"),
        ("source: spoon\ntarget: spoon\ninstruction: x", "two different things"),
        ("source: spoon\ntarget: plate\ninstruction: x\nrelation: under", "Unknown relation .*'under'"),
        ("source: spoon\ntarget: plate\ninstruction: [1]", "a sentence or a list of sentences as instruction"),
        ("source: spoon\ntarget: plate\ninstruction: x\nregion: {source: {x: [1]}}", r"GREATEST\] as region.source.x"),
        ("source: spoon\ntarget: plate\ninstruction: x\ngrid: none", "a number from 1 on as grid"),
        ("source: {object: spoon, rest: 4}\ntarget: plate\ninstruction: x", "rest: from 0 to 0"),
        ("like: widowx_stack_cube\nsource: spoon", "takes source from like: widowx_stack_cube"),
        ("like: google_robot_pick_coke_can", "needs a task of the WidowX as like"),
        ("like: widowx_stack_cube\nlayouts: 5", "a list of layouts"),
        ("like: widowx_stack_cube\nlayouts: [{source: [0, 0, 0]}]", "Layout 0 .* needs a pose of target"),
        ("like: widowx_stack_cube\nlayouts: [{source: [0, 0], target: [0, 0, 0]}]", "layouts.0.source"),
        ("like: widowx_stack_cube\nname: widowx_stack_cube", "is the gym's own: give yours another name"),
        ("- a list", "needs lines KEY: VALUE"),
        ("{", "cannot be read as YAML"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_sentence(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "task.yaml").write_text(text)
    with pytest.raises(GymError, match=sentence) as error:
        get_task("task.yaml")
    assert "\n" not in str(error.value)
    assert not tasks.added_tasks()


def test_commands_know_it_and_a_run_does_not_go_on_with_another_file(tmp_path: Path) -> None:
    """Evaluation, comparison and report; the run keeps the file's checksum."""
    keys = {"task": "spoon_on_plate.yaml", "episodes": 2, "max_episode_steps": 2, "video": 0}
    keys |= {"engine": {"name": "mujoco", "threads": 1}}
    found = vlaser_gym.evaluate("expert", run="run", **keys)
    assert [r["task"] for r in found.records] == ["spoon_on_plate"] * 2
    again = vlaser_gym.evaluate("expert", run="again", **keys)
    assert vlaser_gym.compare(found, again).comparison.against[0].overall.n == 2
    assert "spoon_on_plate" in (tmp_path / "run/report.html").read_text()
    (tmp_path / "spoon_on_plate.yaml").write_text(SPOON.replace("clearance: 0.05", "clearance: 0.04"))
    with pytest.raises(GymError, match=r"task_definitions\.spoon_on_plate was"):
        vlaser_gym.evaluate("expert", run="run", **keys)


def test_perturbations_apply_where_they_have_something_to_change(tmp_path: Path) -> None:
    from vlaser_gym.envs.perturbations import get_perturbation

    (tmp_path / "cube.yaml").write_text("instruction: spoon, green cube\nsource: spoon\ntarget: green_cube\ngrid: 1\n")
    usual, odd = get_task("spoon_on_plate.yaml"), get_task("cube.yaml")
    for name, there in (("another_target", (True, False)), ("distractors", (True, True)), ("typos", (True, True))):
        assert (get_perturbation(name).applies(usual), get_perturbation(name).applies(odd)) == there, name
    assert not get_perturbation("paraphrase").applies(odd), "no sentence of a known form"


@pytest.mark.slow
def test_the_expert_solves_it_and_it_is_recorded_and_rendered(tmp_path: Path) -> None:
    """Images come from processes that never read the file."""
    from vlaser_gym.cli import load
    from vlaser_gym.commands.render import main as render

    found = vlaser_gym.evaluate("expert", task="spoon_on_plate.yaml", episodes=4, layouts="region", run="run", video=1)
    assert found.rates["spoon_on_plate"].rate == 1.0
    render(load("render", ["run=run", "episodes=successes", "output=seen", "camera=policy,top"]))
    assert len(list(Path("seen").glob("*.mp4"))) == 4
    data = vlaser_gym.collect(task="spoon_on_plate.yaml", episodes=1, image_size=32, output="data", num_envs=1)
    assert json.loads((data / "meta/info.json").read_text())["total_episodes"] == 1
