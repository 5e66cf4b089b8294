"""Rules of the Google Robot tasks against recorded episodes of the original."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import GOOGLE_TASKS
from vlaser_gym.envs.tasks.base import Layout, Snapshot, Task
from vlaser_gym.envs.tasks.cabinet import DRAWERS, JOINT_DAMPING, JOINT_FRICTION, ORIGIN, TOP, joint_name
from vlaser_gym.envs.tasks.drawers import ROBOT_POSES

TASKS = {task.name: task for task in GOOGLE_TASKS}
PICK = [f"google_robot_pick_coke_can.{name}" for name in ("horizontal", "vertical", "standing")]
DRAWER = [f"google_robot_{verb}_drawer.{name}" for verb in ("open", "close") for name in DRAWERS]
NEAR, PLACE = "google_robot_move_near", "google_robot_place_apple_in_closed_top_drawer"
FOLDERS = [*PICK, NEAR, *DRAWER, PLACE]

#: Our flag -> the recorded one, where the names differ.
RENAMED = {
    "ever_grasped": "stat_grasped",
    "ever_consecutive_grasp": "stat_consec_grasp",
    "is_drawer_open": "stat_is_drawer_open",
    "has_contact": "stat_has_contact",
}
#: Our memory -> the recorded count.
COUNTS = {"lift_steps": "flag_stat_n_lift_significant", "contact_steps": "flag_stat_has_contact"}
#: Contact partner -> group of the recording. It knows one impulse per finger, given here to the finger's first link.
GROUPS = {"link:link_finger_right": "finger_right", "link:link_finger_left": "finger_left", "scene": "scene_static"}
UNTURNED = np.array([[0.0, 0, 0, 1, 0, 0, 0]])


def load_index(folder: Path) -> dict[str, dict]:
    return json.loads((folder / "index.json").read_text())


def load(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as arrays:
        return {name: arrays[name] for name in arrays}


def layout_of(task: Task, stem: str, meta: dict, folder: str) -> Layout:
    """The layout that the recorded episode should have."""
    if folder == NEAR:
        return task.layout(f"grid:{int(stem[:3])}")
    if folder in PICK:
        return task.layout(f"grid:{max(0, int(stem[:3]) - 100)}")
    pose = list(ROBOT_POSES).index(meta["overlay"].removeprefix("open_drawer_").removesuffix(".png"))
    # Place: of the nine poses a0, b0 and c0, with nine positions of the apple each.
    return task.layout(f"grid:{pose // 3 * 9 if folder == PLACE else pose}")


def joints_at(recording: dict, row: int) -> dict[str, np.ndarray]:
    if "drawer_qpos" not in recording:
        return {}
    return {joint_name(name): recording["drawer_qpos"][row, i : i + 1] for i, name in enumerate(DRAWERS)}


def impulses(task: Task, cast: str, recording: dict, meta: dict, row: int) -> np.ndarray:
    """Recorded norms as vectors along +y; the cabinet's impulse is the drawer floor's once the object is inside."""
    queries = task.contacts_of(cast)
    out = np.zeros((1, len(queries), 3))
    for i, query in enumerate(queries):
        group = GROUPS.get(query.of if query.of.startswith("link:") else query.by)
        if query.by == f"part:{meta.get('drawer')}_drawer_floor" and recording["obj_pose"][row, 0, 2] < TOP:
            group = "cabinet"
        if group is not None:
            out[0, i, 1] = recording["contact_impulse"][row, 0, meta["contact_groups"].index(group)]
    return out


def snapshots(task: Task, cast: str, recording: dict, meta: dict) -> Iterator[Snapshot]:
    """What an engine would have reported after every control step."""
    links = {q.of.removeprefix("link:"): UNTURNED for q in task.contacts_of(cast) if q.of.startswith("link:")}
    for row in range(1, len(recording["action"]) + 1):
        pose = recording["obj_pose"][row][None].astype(float) if "obj_pose" in recording else np.zeros((1, 0, 7))
        impulse = impulses(task, cast, recording, meta, row)
        yield Snapshot(pose, links, impulse, joints_at(recording, row), np.array([row]))


@pytest.mark.golden
@pytest.mark.parametrize("name", FOLDERS)
def test_flags_of_recorded_replays(golden: Path, name: str) -> None:
    """Every flag at every step, from recorded poses, drawers and norms of contact impulses."""
    folder, raised, wrong, steps = golden / "replay_task" / name, Counter(), [], 0
    for stem, meta in load_index(folder).items():
        task, recording = TASKS[meta["simpler_task"]], load(folder / f"{stem}.npz")
        layout = layout_of(task, stem, meta, name)
        if "obj_pose" in recording:
            layout = replace(layout, object_pose=recording["obj_pose"][0].astype(float))
        memory = task.begin([layout])
        for k, scene in enumerate(snapshots(task, layout.cast, recording, meta)):
            flags, memory = task.evaluate(scene, memory)
            for flag, value in flags.items():
                if bool(recording[f"flag_{RENAMED.get(flag, flag)}"][k]) != bool(value[0]):
                    wrong.append((stem, k, flag))
                raised[flag] += int(value[0])
            wrong += [(stem, k, n) for n, key in COUNTS.items() if n in memory and memory[n][0] != recording[key][k]]
            steps += 1
    assert wrong == []
    assert steps >= 200
    assert all(raised[flag] for flag in flags if flag != "moved_wrong_obj")


@pytest.mark.golden
@pytest.mark.parametrize("name", FOLDERS)
def test_every_recorded_flag_is_compared(golden: Path, name: str) -> None:
    """Of the rest, ``terminated`` repeats success, the drawers' positions are input, move near's statistics repeat."""
    for stem, meta in load_index(golden / "replay_task" / name).items():
        ours = {f"flag_{RENAMED.get(flag, flag)}" for flag in TASKS[meta["simpler_task"]].flags} | set(COUNTS.values())
        recording = load(golden / "replay_task" / name / f"{stem}.npz")
        rest = {key for key in recording if key.startswith("flag_")} - ours
        repeated = {key for key in rest if key.replace("stat_", "") in ours}
        assert rest - repeated <= {"flag_terminated", "flag_truncated", "flag_qpos", "flag_stat_qpos"}
        np.testing.assert_array_equal(recording["flag_terminated"], recording["flag_success"])
        for key in repeated:
            np.testing.assert_array_equal(recording[key], recording[key.replace("stat_", "")])


@pytest.mark.golden
@pytest.mark.parametrize("name", FOLDERS)
def test_layouts_of_reset_recordings(golden: Path, name: str) -> None:
    """Poses, drawers, robot base, start joints, photograph, instruction, limit."""
    folder, compared = golden / "reset" / name, 0
    for stem, meta in load_index(folder).items():
        task, recording = TASKS[meta["simpler_task"]], load(folder / f"{stem}.npz")
        if name in PICK and int(stem) < 100:
            continue
        layout, setup = layout_of(task, stem, meta, name), get_setup(task.robot_setup)
        np.testing.assert_allclose(layout.base_pose or setup.base_pose, recording["base_pose_world"], atol=1e-6)
        np.testing.assert_allclose(layout.qpos or setup.qpos, recording["qpos"], atol=1e-6)
        assert layout.overlay == meta["overlay"]
        assert task.max_steps == meta["max_episode_steps"]
        if name != PLACE:
            check_poses(layout.object_pose, recording.get("obj_pose", np.zeros((0, 7))))
        for joint, position in layout.joints.items():
            assert position == pytest.approx(recording["drawer_qpos"][meta["drawer_joint_names"].index(joint)])
        compared += 1
    assert compared >= 8


def check_poses(ours: np.ndarray, recorded: np.ndarray) -> None:
    """Layouts that rocked are stored as recorded; the others are composed, and agree to a few micrometres."""
    np.testing.assert_allclose(ours[:, :3], recorded[:, :3], atol=1e-5)
    dot = np.abs((ours[:, 3:] * recorded[:, 3:]).sum(-1))
    # 0.0014 rad: the heading at which an apple stops rolling differs from drop to drop.
    assert (2 * np.arccos(np.minimum(dot, 1.0)) < 0.0015).all()
    np.testing.assert_allclose(np.linalg.norm(ours[:, 3:], axis=1), 1.0, atol=1e-12)


@pytest.mark.golden
def test_the_apple_on_the_cabinet_rests_as_recorded(golden: Path) -> None:
    """Recorded at drawn positions: height and tilt are compared, and that the grid's positions are met."""
    task, folder = TASKS[PLACE], golden / "reset" / PLACE
    poses = np.array([load(folder / f"{stem}.npz")["obj_pose"][0] for stem in load_index(folder)])
    ours = np.array([task.layout(f"grid:{k}").object_pose[0] for k in range(27)])
    np.testing.assert_allclose(ours[:, 2], poses[:, 2].mean(), atol=2e-6)
    np.testing.assert_allclose(np.abs(ours[:, 4:6]), np.abs(poses[:1, 4:6]).repeat(27, 0), atol=5e-5)


@pytest.mark.golden
@pytest.mark.parametrize("name", FOLDERS)
def test_scene_of_reset_recordings(golden: Path, name: str) -> None:
    """Objects, world boxes, instruction, contact groups, cabinet."""
    folder = golden / "reset" / name
    for stem, meta in load_index(folder).items():
        task, recording = TASKS[meta["simpler_task"]], load(folder / f"{stem}.npz")
        layout = layout_of(task, stem, meta, name)
        index = {NEAR: int(stem[:3])}.get(name, 0)
        assert task.instruction(f"grid:{index}") == meta["instruction"]
        bodies = task.objects_of(layout.cast) if layout.cast else ()
        assert [body.name for body in bodies] == meta["object_names"]
        if name == NEAR:
            assert bodies[layout.source].name == meta["source_object"]
            assert bodies[layout.target].name == meta["target_object"]
            box = task.begin([replace(layout, object_pose=recording["obj_pose"].astype(float))])["box"][0]
            np.testing.assert_allclose(box, [meta["source_bbox_world"], meta["target_bbox_world"]], atol=1e-6)
        if "cabinet_pose_world" in meta:
            np.testing.assert_allclose(meta["cabinet_pose_world"][:3], ORIGIN, atol=1e-6)
            assert [joint_name(drawer) for drawer in DRAWERS] == meta["drawer_joint_names"]
            assert (meta["drawer_joint_damping"], meta["drawer_joint_friction"]) == pytest.approx(
                (JOINT_DAMPING, JOINT_FRICTION)
            )


@pytest.mark.golden
@pytest.mark.parametrize("name", [*PICK, NEAR, PLACE])
def test_bodies_of_recordings(golden: Path, name: str) -> None:
    for meta in load_index(golden / "reset" / name).values():
        layout_index = meta["reset_options"].get("obj_init_options", {}).get("episode_id", 0)
        task = TASKS[meta["simpler_task"]]
        for body, data in zip(task.objects_of(task.layout(f"grid:{layout_index}").cast), meta["objects"], strict=True):
            np.testing.assert_allclose(body.mass, data["mass"], rtol=1e-6)
            np.testing.assert_allclose(body.inertia, data["inertia_principal"], rtol=2e-5)
            np.testing.assert_allclose(body.com, data["cmass_local_pose"][:3], atol=1e-9)
            np.testing.assert_allclose(body.com_rotation, data["cmass_local_pose"][3:], atol=1e-8)


@pytest.mark.golden
def test_the_instruction_changes_as_recorded(golden: Path) -> None:
    """The second sub-task is forced by the 101st step, and what is told at the end is its instruction."""
    task, folder = TASKS[PLACE], golden / "replay_task" / PLACE
    for stem, meta in load_index(folder).items():
        recording, memory = load(folder / f"{stem}.npz"), task.begin([task.layout("grid:0")])
        stages = []
        for scene in snapshots(task, "baked_apple_v2", recording, meta):
            _, memory = task.evaluate(scene, memory)
            stages.append(int(task.stage(memory)[0]))
        assert stages == [int(k >= 100) for k in range(len(stages))]
        # The recording holds the instruction at its end.
        assert task.instruction("grid:0", stage=stages[-1]) == meta["instruction"]
