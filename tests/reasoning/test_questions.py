"""Answers of made questions, derived a second time: MuJoCo's own kinematics and cameras instead of ours, loops over the
pixels of MuJoCo's own segmentation instead of masks, recorded flags and joints instead of episodes.
"""

from __future__ import annotations

import json
import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from vlaser_gym import cli
from vlaser_gym.commands import questions as questions_command
from vlaser_gym.envs.engines.mujoco.scene import build_scene, write_qpos
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.store import read_records, read_states
from vlaser_gym.reasoning.catalogue import KINDS
from vlaser_gym.reasoning.coordinates import decode_mask
from vlaser_gym.reasoning.folder import Question, read_questions, splits_of
from vlaser_gym.reasoning.scores import score

#: MuJoCo's own renderer draws in this process: run with MUJOCO_GL=egl.
pytestmark = pytest.mark.long

TASKS = (
    "widowx_stack_cube,widowx_put_eggplant_in_basket,google_robot_move_near_v0,google_robot_open_drawer,"
    "google_robot_close_drawer,google_robot_pick_coke_can"
)
SETTINGS = [f"task=[{TASKS}]", "count=900", "layouts=54", "per_picture=4", "processes=1", "seed=3", "thinking=true"]
TCP = {"widowx": "link:ee_gripper_link", "google_robot": "link:link_gripper_tcp"}
MODELS = {
    "green block": "baked_green_cube_3cm",
    "yellow block": "baked_yellow_cube_3cm",
    "eggplant": "eggplant",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("questions") / "q"
    cli.run("questions", questions_command.main, [f"output={path}", *SETTINGS])
    return path


@pytest.fixture(scope="module")
def questions(folder: Path) -> list[Question]:
    return read_questions(folder, splits_of(folder))


class World:
    """One recorded state in MuJoCo: where bodies and the camera are, and which body every pixel shows."""

    def __init__(self, scene: Any, states: dict[str, NDArray[Any]], step: int, question: Question) -> None:
        self.task, self.scene = get_task(question.task), scene
        self.robot, self.states = question.robot, states
        layout = self.task.layout(question.layout, question.variant)
        self.names = [body.name for body in self.task.objects_of(layout.cast)]
        poses = np.array([states[f"object/{name}"][step] for name in self.names]).reshape(-1, 7)
        joints = {name: float(states[f"joint/{name}"][step]) for name in scene.joint_qpos}
        self.data = mujoco.MjData(scene.model)
        write_qpos(scene, self.data.qpos, states["qpos"][step], poses, joints)
        if scene.base >= 0:
            self.data.mocap_pos[scene.base] = states["base_pose"][step][:3]
            self.data.mocap_quat[scene.base] = states["base_pose"][step][3:]
        mujoco.mj_forward(scene.model, self.data)

    def centre(self, name: str) -> NDArray[np.float64]:
        """World position: a body's centre of mass as MuJoCo has it, a handle's bar, the TCP link."""
        if name == "gripper":
            return np.array(self.data.body(TCP[self.robot]).xpos)
        if name.startswith("handle"):
            return np.array(self.data.geom(f"part:{name.split()[-2]}_drawer_handle_bar/visual").xpos)
        if name == "yellow basket":
            return np.array([-0.16, 0.13, 0.88]) + (0.021, -0.1005, 0.075)
        return np.array(self.data.body(f"object:{self.model_of(name)}").xipos)

    def model_of(self, name: str) -> str:
        if name in MODELS:
            return MODELS[name]
        return next(m for m in self.names if name.replace(" ", "_") in m)

    def seen(self, name: str) -> NDArray[np.float64]:
        """Column, row, and distance along the camera's axis."""
        return self.project(self.centre(name))

    def project(self, point: NDArray[np.float64]) -> NDArray[np.float64]:
        camera = get_setup(self.task.robot_setup).camera
        x, y, z = self.data.camera(camera.name).xmat.reshape(3, 3).T @ (point - self.data.camera(camera.name).xpos)
        return np.array([camera.cx + camera.focal * x / -z, camera.cy - camera.focal * y / -z, -z])

    def in_robot(self, name: str) -> NDArray[np.float64]:
        base = self.data.body("link:link_base" if self.robot == "google_robot" else "link:base_link")
        return base.xmat.reshape(3, 3).T @ (self.centre(name) - base.xpos)

    def pixels(self, name: str) -> NDArray[np.bool_]:
        """By MuJoCo's renderer: pixels whose geom belongs to the thing."""
        camera = get_setup(self.task.robot_setup).camera
        with mujoco.Renderer(self.scene.model, camera.height, camera.width, max_geom=1000) as renderer:
            renderer.update_scene(self.data, camera.name)
            renderer.enable_segmentation_rendering()
            seen = renderer.render()
        geoms = np.where(seen[..., 1] == int(mujoco.mjtObj.mjOBJ_GEOM), seen[..., 0], -1)
        model = self.scene.model
        mine = [-2]
        for i in range(model.ngeom):
            body, geom = model.body(int(model.geom_bodyid[i])).name, model.geom(i).name
            if name.startswith("handle"):
                is_mine = geom.startswith(f"part:{name.split()[-2]}_drawer_handle")
            elif name == "gripper":
                is_mine = bool(re.search(r"link:.*(gripper|finger|ee_)", body))
            else:
                is_mine = body == f"object:{self.model_of(name)}"
            mine += [i] if is_mine else []
        return np.isin(geoms, mine)


class Worlds:
    def __init__(self, folder: Path) -> None:
        self.records = {
            (run.name, r["task"], r["variant"], r["layout"], r["trial"]): (run, r)
            for run in sorted((folder / "episodes").iterdir())
            for r in read_records(run)
        }
        self.moments = {}
        for line in (folder / "moments.jsonl").read_text().splitlines():
            moment = json.loads(line)
            self.moments[moment["image"]] = moment
        self.scenes: dict[Any, Any] = {}
        self.made: dict[str, World] = {}

    def record(self, image: str) -> dict[str, Any]:
        return self._found(image)[1]

    def _found(self, image: str) -> tuple[Path, dict[str, Any]]:
        moment = self.moments[image]
        return self.records[tuple(moment[k] for k in ("run", "task", "variant", "layout", "trial"))]

    def states(self, image: str) -> dict[str, NDArray[Any]]:
        return read_states(*self._found(image))

    def __call__(self, question: Question, number: int = 0, ahead: int = 0) -> World:
        image = question.images[number]
        cast = get_task(question.task).layout(question.layout, question.variant).cast
        key = question.task, question.variant, cast
        if key not in self.scenes:
            self.scenes[key] = build_scene(get_task(question.task), question.variant, cast=cast)
        return World(self.scenes[key], self.states(image), question.steps[number] + ahead, question)


@pytest.fixture(scope="module")
def worlds(folder: Path) -> Worlds:
    return Worlds(folder)


def of(questions: list[Question], kind: str, most: int = 40) -> list[Question]:
    found = [question for question in questions if question.kind == kind]
    assert found, f"no question of {kind} was made"
    return found[:: max(1, len(found) // most)][:most]


def named(question: Question) -> tuple[str, str]:
    """The two things of a question, in the order in which it names them."""
    names = question.about.split(" | ")
    # Options with letters may name them too: only the first line is the question.
    text = question.text.split("\n")[0]
    first, second = sorted(names, key=lambda name: (text.index(name), -len(name)))
    if question.kind in ("side_in_view", "side_for_robot", "depth_in_view", "depth_for_robot", "height"):
        subject = re.search(rf"({'|'.join(map(re.escape, names))})", text)
        assert subject
        # "On which side of the B is the A", "Where is the A, seen from the B", ...
        if re.match(r"(On which side of|From where)", text) and "which side of" in text:
            first, second = second, first
    return first, second


PAIRS = {
    "side_in_view": lambda w, a, b: "left" if w.seen(a)[0] < w.seen(b)[0] else "right",
    "depth_in_view": lambda w, a, b: "in front" if w.seen(a)[2] < w.seen(b)[2] else "behind",
    "side_for_robot": lambda w, a, b: "left" if w.in_robot(a)[1] > w.in_robot(b)[1] else "right",
    "depth_for_robot": lambda w, a, b: "in front" if w.in_robot(a)[0] < w.in_robot(b)[0] else "behind",
    "height": lambda w, a, b: "above" if w.centre(a)[2] > w.centre(b)[2] else "below",
}


@pytest.mark.parametrize("kind", PAIRS)
def test_relations(kind: str, questions: list[Question], worlds: Worlds) -> None:
    for question in of(questions, kind):
        a, b = named(question)
        assert question.right == PAIRS[kind](worlds(question), a, b), (question.text, question.images)


def test_nearer_distance_and_highest(questions: list[Question], worlds: Worlds) -> None:
    for question in of(questions, "nearer"):
        world = worlds(question)
        gaps = {n: np.linalg.norm(world.centre(n) - world.centre("gripper")) for n in question.about.split(" | ")}
        assert question.right == min(gaps, key=lambda name: gaps[name])
    for question in of(questions, "distance"):
        world = worlds(question)
        a, b = question.about.split(" | ")
        expected = 100 * np.linalg.norm(world.centre(a) - world.centre(b))
        assert question.truth["value"] == pytest.approx(expected, abs=0.05)
        assert question.answer == f"{round(question.truth['value'])} cm"
    for question in [q for q in questions if q.kind == "highest"]:
        world = worlds(question)
        assert question.right == max(question.about.split(" | "), key=lambda name: world.centre(name)[2])


def test_points_and_boxes_by_the_pixels(questions: list[Question], worlds: Worlds) -> None:
    found = [q for kind in ("point", "box", "name_at_point") for q in of(questions, kind, 14)]
    about = Counter()
    for question in found:
        name = question.right if question.kind == "name_at_point" else question.about
        if name == "yellow basket":
            continue  # what it encloses is tested below
        about[name.split()[0]] += 1
        pixels = worlds(question).pixels(name)
        height, width = pixels.shape
        if question.kind == "box":
            rows, columns = np.nonzero(pixels)
            assert question.truth["box"] == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
            numbers = [int(n) for n in re.findall(r"\d+", question.answer.split("<box>")[1])]
            expected = np.array(question.truth["box"]) / (width, height, width, height) * 1000
            assert np.abs(np.array(numbers) - expected).max() < 1
        else:
            text = question.answer if question.kind == "point" else question.text
            (x, y) = re.findall(r"\[\[(\d+), (\d+)\]\]", text)[-1]
            assert pixels[int(int(y) / 1000 * height), int(int(x) / 1000 * width)], question.text
        if question.kind == "point":
            np.testing.assert_array_equal(decode_mask(question.truth["mask"]), pixels)
    assert len(about) > 4


@pytest.mark.parametrize("kind", PAIRS)
def test_thoughts_say_where_the_two_things_are_seen(kind: str, questions: list[Question], worlds: Worlds) -> None:
    for question in of(questions, kind, 5):
        said = re.findall(r"<ref>(.+?)</ref><point>\[\[(\d+), (\d+)\]\]</point>", question.thought)
        assert tuple(name for name, _, _ in said) == named(question)
        for name, x, y in said:
            if name != "yellow basket":
                pixels = worlds(question).pixels(name)
                height, width = pixels.shape
                assert pixels[int(int(y) / 1000 * height), int(int(x) / 1000 * width)], question.thought


def test_thoughts_of_other_kinds(questions: list[Question], worlds: Worlds) -> None:
    for question in of(questions, "nearer"):
        names = re.findall(r"<ref>(.+?)</ref>", question.thought)
        assert names[0] == "gripper"
        assert sorted(names[1:]) == sorted(question.options)
    with_thoughts = {question.kind for question in questions if question.thought}
    assert with_thoughts == {*PAIRS, "nearer", "distance", "is_on", "direction"}
    for question in of(questions, "direction"):
        plan, *names = re.split(r"<ref>(.+?)</ref><point>.*?</point>", question.thought)
        # The plan is what the folder's moments say about the same image.
        moment = worlds.moments[question.images[0]]
        assert plan == ("" if moment["subtask"] is None else moment["subtasks"][moment["subtask"]])
        assert not names or names[0] == "gripper"


def test_the_basket_is_what_its_rim_encloses(questions: list[Question]) -> None:
    found = [q for q in questions if q.kind == "point" and q.about == "yellow basket"]
    assert found
    assert all(question.fixed for question in found)
    assert not any(q.fixed for q in questions if q.kind == "point" and q.about != "yellow basket")
    areas = [decode_mask(question.truth["mask"]).sum() for question in found]
    assert min(areas) > 5_000
    assert max(areas) < 60_000


def test_numbers_of_the_robot_and_of_drawers(questions: list[Question], worlds: Worlds) -> None:
    for question in of(questions, "gripper_open"):
        qpos = worlds.states(question.images[0])["qpos"][question.steps[0]]
        if question.robot == "widowx":
            open_share = np.mean([(q - 0.015) / (0.037 - 0.015) for q in qpos[6:8]])
        else:
            open_share = 1 - np.mean(qpos[7:9]) / 1.3
        assert question.truth["value"] == pytest.approx(100 * min(open_share, 1), abs=0.1)
    for question in of(questions, "drawer_opening"):
        drawer = question.about.split()[0]
        opening = worlds.states(question.images[0])[f"joint/{drawer}_drawer_joint"][question.steps[0]]
        assert question.truth["value"] == pytest.approx(100 * opening, abs=0.01)
    for question in of(questions, "open_drawer"):
        states, step = worlds.states(question.images[0]), question.steps[0]
        opened = [d for d in ("top", "middle", "bottom") if states[f"joint/{d}_drawer_joint"][step] > 0.05]
        assert question.right == (f"the {opened[0]} one" if opened else "none")


def test_counts(questions: list[Question], worlds: Worlds) -> None:
    for question in of(questions, "how_many", 10):
        world = worlds(question)
        things = [n for n in world.names if n not in ("sink", "dummy_sink_target_plane")]
        wanted = [n for n in things if "can" in n.split("_")] if question.about == "cans" else things
        assert question.right == str(len(wanted))


FLAGS = {"is_on": "src_on_target", "task_done": "success"}


def test_what_is_held_done_and_on(questions: list[Question], worlds: Worlds) -> None:
    for kind, flag in FLAGS.items():
        for question in of(questions, kind):
            states, step = worlds.states(question.images[0]), question.steps[0]
            holds = bool(step and states[f"flag/{flag}"][step - 1])
            assert question.right == ("yes" if holds else "no")
    for question in of(questions, "held"):
        states, step = worlds.states(question.images[0]), question.steps[0]
        grasp = next((n for n in ("flag/is_src_obj_grasped", "flag/is_grasped") if n in states), None)
        if grasp is not None:
            assert (question.right != "nothing") == bool(step and states[grasp][step - 1])
        if question.right != "nothing":
            world = worlds(question)
            name = question.right.removeprefix("the ")
            assert np.linalg.norm(world.centre(name) - world.centre("gripper")) < 0.1


def test_time_and_endings(questions: list[Question], worlds: Worlds) -> None:
    for question in of(questions, "later"):
        assert question.steps[0] != question.steps[1]
        assert question.right == ("the second" if question.steps[1] > question.steps[0] else "the first")
    for question in of(questions, "ending"):
        record = worlds.record(question.images[1])
        assert question.steps == [0, record["steps"]]
        assert (question.right == "the task was done") == record["success"]
        if "still held" in question.right:
            name = re.search(r"the (.*) is still held", question.right)[1]  # type: ignore[index]
            begin, end = worlds(question).centre(name), worlds(question, 1).centre(name)
            assert end[2] > begin[2] - 0.01
            assert np.linalg.norm(end - worlds(question, 1).centre("gripper")) < 0.1
        elif "was not moved" in question.right and "drawer" not in question.right:
            name = re.search(r"the (.*) was not moved", question.right)[1]  # type: ignore[index]
            assert np.linalg.norm(worlds(question).centre(name) - worlds(question, 1).centre(name)) < 0.031


def test_directions_and_traces_are_what_the_gripper_did(questions: list[Question], worlds: Worlds) -> None:
    axes = (("forward", "backward"), ("left", "right"), ("up", "down"))
    for question in of(questions, "direction"):
        assert worlds.record(question.images[0])["success"]
        way = worlds(question, ahead=4).in_robot("gripper") - worlds(question).in_robot("gripper")
        largest = int(np.abs(way).argmax())
        others = np.delete(np.abs(way), largest)
        assert abs(way[largest]) > 0.005
        assert abs(way[largest]) >= 1.499 * others.max()
        assert question.right == axes[largest][int(way[largest] < 0)]
    for question in of(questions, "trace", 15):
        now = worlds(question)
        for k, pixel in enumerate(question.truth["points"], 1):
            expected = now.project(worlds(question, ahead=2 * k).centre("gripper"))[:2]
            assert np.abs(expected - pixel).max() < 0.5
        assert score(question, question.answer).value == 1


def test_sub_tasks_of_the_cubes_by_their_conditions(questions: list[Question], worlds: Worlds) -> None:
    """For stacking, written out here: near 5 cm, lifted 3 cm, over 3 cm."""
    asked = [q for q in questions if q.kind == "next_subtask" and q.task == "widowx_stack_cube"]
    assert asked
    left = [q for q in questions if q.kind == "subtasks_left" and q.task == "widowx_stack_cube"]
    for question in [*asked, *left]:
        states, step = worlds.states(question.images[0]), question.steps[0]
        world = worlds(question)
        cube, goal, gripper = (world.centre(n) for n in ("green block", "yellow block", "gripper"))
        held = bool(step and states["flag/is_src_obj_grasped"][step - 1])
        rise = cube[2] - states["object/baked_green_cube_3cm"][0][2]
        if not held and step and states["flag/success"][step - 1]:
            expected = "nothing, the task is done"
        elif not held:
            near = np.linalg.norm(cube - gripper) < 0.05
            expected = "close the gripper on the green block" if near else "move the gripper to the green block"
        elif rise < 0.03:
            expected = "lift the green block"
        else:
            over = np.linalg.norm((cube - goal)[:2]) < 0.03
            expected = "put the green block down" if over else "carry the green block to the yellow block"
        assert question.right.split("; ")[0] == expected
        if question.kind == "subtasks_left" and expected != "nothing, the task is done":
            assert question.right.endswith("put the green block down")


def test_balance(questions: list[Question]) -> None:
    """Within kind, wording and object no option is right more often than chance and five points."""
    groups: dict[Any, list[Question]] = defaultdict(list)
    for question in questions:
        if question.form == "choice":
            groups[question.split, question.kind, question.wording, question.about].append(question)
    assert len(groups) > 50
    for key, group in groups.items():
        chance = 1 / len(group[0].options)
        rights, places = Counter(q.right for q in group), Counter(q.options.index(q.right) for q in group)
        assert max(rights.values()) / len(group) <= chance + 0.05, key
        assert max(places.values()) / len(group) <= chance + 0.05, key


def test_splits_and_files(folder: Path, questions: list[Question]) -> None:
    assert len(questions) == 900
    layouts = defaultdict(set)
    for question in questions:
        layouts[question.split].add((question.task, question.layout))
    assert all(layout.startswith("region") for _, layout in layouts["train"])
    assert all(layout.startswith("grid") for split in layouts.keys() - {"train"} for _, layout in layouts[split])
    held_out = {(q.kind, q.wording) for q in questions if q.split == "ood_wording"}
    assert held_out.isdisjoint((q.kind, q.wording) for q in questions if q.split != "ood_wording")
    for split in splits_of(folder):
        lines = [json.loads(line) for line in (folder / f"{split}.jsonl").read_text().splitlines()]
        mine = [question for question in questions if question.split == split]
        assert [line["id"] for line in lines] == [question.id for question in mine]
        for line, question in zip(lines, mine, strict=True):
            human, gpt = line["conversations"]
            assert human["from"] == "human"
            thinking = f"<think>{question.thought}</think>" if question.thought else ""
            assert gpt == {"from": "gpt", "value": thinking + question.answer}
            assert human["value"].count("<image>") == len(question.images)
            assert human["value"].endswith(question.text)
    with Image.open(folder / questions[0].images[0]) as picture:
        assert list(picture.size) == questions[0].sizes[0]
    meta = json.loads((folder / "meta.json").read_text())
    assert {entry["length"] for entry in meta.values()} == set(Counter(q.split for q in questions).values())
    assert "900 questions" in (folder / "README.md").read_text()


def test_every_answer_is_right_by_its_own_score(questions: list[Question]) -> None:
    for question in questions:
        for answer in (question.answer, question.conversation()["conversations"][1]["value"]):
            assert score(question, answer).value > 0.6, (question.kind, answer)


def test_almost_every_kind_is_asked(questions: list[Question]) -> None:
    asked = {question.kind for question in questions}
    assert set(KINDS) - asked <= {"highest"}, set(KINDS) - asked


def contents(folder: Path) -> dict[str, bytes]:
    names = [*folder.glob("*.jsonl"), *folder.glob("truth/*"), *folder.glob("images/*"), folder / "README.md"]
    return {str(file.relative_to(folder)): file.read_bytes() for file in names}


SMALL = ["task=widowx_stack_cube,google_robot_move_near_v0", "count=60", "layouts=6", "processes=1"]


def test_byte_equal_for_a_seed_also_when_interrupted(tmp_path: Path) -> None:
    for name in ("a", "b"):
        cli.run("questions", questions_command.main, [f"output={tmp_path / name}", *SMALL])
    whole = contents(tmp_path / "a")
    assert whole == contents(tmp_path / "b")
    # As if the machine had died among the images: the last ones and a half line are lost.
    file = tmp_path / "b" / "moments.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:5]) + lines[5][:40])
    (tmp_path / "b" / "images" / "000009.jpg").unlink()
    (tmp_path / "b" / "test.jsonl").unlink()
    cli.run("questions", questions_command.main, [f"output={tmp_path / 'b'}", *SMALL])
    assert whole == contents(tmp_path / "b")


def test_other_settings_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [f"output={tmp_path / 'a'}", "task=widowx_stack_cube", "count=12", "layouts=2", "kinds=grounding"]
    cli.run("questions", questions_command.main, arguments)
    with pytest.raises(SystemExit):
        cli.run("questions", questions_command.main, [*arguments, "seed=9"])
    assert "other settings" in capsys.readouterr().err
