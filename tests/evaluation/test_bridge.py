"""ManiSkill's own bridge environments beside ours: what they have in common with the original, and what they do not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from vlaser_gym.envs.bridge import Begin, BridgeEnvironments, link_files, own_episode
from vlaser_gym.envs.tasks import get_task, resolve
from vlaser_gym.evaluation.bridge import bridge_robot_figures, bridge_task_figures
from vlaser_gym.evaluation.parity import Recordings

CUBE, SINK = "widowx_stack_cube", "widowx_put_eggplant_in_basket"


def test_the_eggplants_episode_is_the_one_at_its_place() -> None:
    assert [own_episode(CUBE, layout) for layout in (0, 23)] == [0, 23]
    chosen = [own_episode(SINK, layout) for layout in range(24)]
    assert [episode // 8 for episode in chosen] == [layout // 3 for layout in range(24)]
    assert len(set(chosen)) == 24


def test_files_are_links_into_the_pack(tmp_path: Path) -> None:
    pack, data = tmp_path / "pack", tmp_path / "data"
    robot = pack / "mani_skill2_real2sim/assets/descriptions/widowx_description"
    for folder in (pack / "data/custom", pack / "data/real_inpainting", robot):
        folder.mkdir(parents=True)
    (robot / "wx250s.urdf").write_text("<robot/>")
    (pack / "data/custom/info_bridge_custom_v0.json").write_text("{}")
    link_files(pack, data)
    assert (data / "robots/widowx/wx250s.urdf").read_text() == "<robot/>"
    assert (data / "tasks/bridge_v2_real2sim_dataset/custom/info_bridge_custom_v0.json").is_file()
    assert (data / "tasks/bridge_v2_real2sim_dataset/real_inpainting").is_symlink()


@pytest.fixture(scope="module")
def environments(shared: Path) -> Iterator[BridgeEnvironments]:
    pytest.importorskip("mani_skill", reason="needs the extra: pip install -e '.[maniskill]' -c constraints.txt")
    with BridgeEnvironments(str(shared / "assets/simplerenv")) as environments:
        yield environments


@pytest.mark.slow
@pytest.mark.golden
@pytest.mark.parametrize("task", resolve("widowx"))
def test_own_resets_place_the_robot_as_recorded(golden: Path, environments: BridgeEnvironments, task: str) -> None:
    """Robot and, but for the eggplant, objects stand where the original's layout of the same number has them."""
    key, _, arrays = next(Recordings(golden).episodes("replay_task", task))
    course = environments.play(task, Begin(own_episode(task, int(key[:3]))), np.zeros((1, 7)))
    assert np.allclose(course.tcp[0, :3], arrays["tcp_base"][0, :3], atol=1e-5)
    assert np.allclose(course.qpos[0], arrays["qpos"][0], atol=1e-6)
    for spec, recorded in zip(get_task(task).objects_of("")[:2], arrays["obj_pose"][0], strict=False):
        assert np.linalg.norm(course.object_pose[spec.name][0, :3] - recorded[:3]) < (0.06 if task == SINK else 0.002)


@pytest.mark.slow
@pytest.mark.golden
def test_cubes_are_stacked_as_recorded(golden: Path, environments: BridgeEnvironments) -> None:
    """With the recorded start both cubes are where they were; ManiSkill's reset leaves them within a millimetre."""
    recorded, own = bridge_task_figures(Recordings(golden), CUBE, environments)
    assert recorded["object_mm"] < 0.01
    assert 0.1 < own["object_mm"] < 1
    for row in (recorded, own):
        assert row["recalled"] == row["successes"] == 4
        assert row["false_successes"] == 0 < row["failures"]


@pytest.mark.slow
@pytest.mark.golden
def test_translations_agree_and_rotations_do_not(golden: Path, environments: BridgeEnvironments) -> None:
    """ManiSkill turns the target about itself, the original about the measured TCP."""
    row = bridge_robot_figures(Recordings(golden), environments)
    assert row["response_mm"] < 0.5
    rms = {free["sequence"]: free["rms_mm"] for free in row["free"]}
    assert rms["00"] < 1
    assert rms["01"] > 2
    assert rms["02"] > 5
