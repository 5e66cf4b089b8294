"""Where the objects of the Google Robot scenes begin, against the original: pinned by hand and all of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from vlaser_gym.envs.tasks import GOOGLE_TASKS, get_task
from vlaser_gym.envs.tasks.google_settled import RESTS, pick_starts, resting

TASKS = {task.name: task for task in GOOGLE_TASKS}
PICK = TASKS["google_robot_pick_object"]
#: The grid's coordinates as they are written, x outer.
GRID = [(x, y) for x in (-0.35, -0.2925, -0.235, -0.1775, -0.12) for y in (-0.02, 0.09, 0.20, 0.31, 0.42)]

#: Layout of google_robot_pick_object -> pose right after reset of the original.
PINNED = {
    225: (-0.354549, -0.021721, 0.903053, -0.00011, -0.068578, -0.000136, 0.997646),  # fanta can, lying
    305: (-0.290325, -0.019943, 0.899285, 3.3e-05, 0.036914, 0.000729, 0.999318),  # slim can, lying
    512: (-0.254321, 0.202331, 0.908907, 0.685344, 0.686244, -0.189901, 0.152676),  # apple, dropped standing
    525: (-0.406077, -0.02006, 0.9052, 0.060973, -0.71229, -0.017629, 0.69901),  # orange that rolled 56 mm
    526: (-0.350162, 0.090085, 0.905878, -6.7e-05, -0.002213, 0.001195, 0.999997),  # orange that stayed
    588: (-0.229501, 0.311309, 0.904875, 0.717966, 0.691601, 0.057324, -0.054099),  # orange, dropped standing
    611: (-0.235029, 0.08997, 0.888549, -3e-06, -0.00078, -0.000836, 0.999999),  # sponge, lying
    1049: (-0.122291, 0.401452, 0.886879, 0.238335, 0.969072, -0.063186, 0.0102),  # eggplant, dropped standing
}


def departure(ours: np.ndarray, theirs: np.ndarray) -> tuple[float, float]:
    """Millimetres and degrees between two poses."""
    turn = Rotation.from_quat(ours[3:], scalar_first=True).inv() * Rotation.from_quat(theirs[3:], scalar_first=True)
    return float(np.linalg.norm(ours[:3] - theirs[:3]) * 1e3), float(np.degrees(turn.magnitude()))


def recorded(golden: Path) -> dict[int, dict]:
    layouts = json.loads((golden / "settled_poses_google_pick_object.json").read_text())["layouts"]
    return {int(index): layout | {"pose": np.array(layout["pose"])} for index, layout in layouts.items()}


@pytest.mark.parametrize("index", PINNED)
def test_objects_begin_where_the_original_has_them(index: int) -> None:
    distance, angle = departure(PICK.layout(f"grid:{index}").object_pose[0], np.array(PINNED[index]))
    assert distance < 0.1
    assert angle < 0.1


@pytest.mark.golden
def test_all_starts_of_pick_object_are_the_recorded_ones(golden: Path) -> None:
    """Within the table's tolerance; the rocking coke can was recorded twice, 0.25 mm and 0.2 degrees apart."""
    layouts = recorded(golden)
    assert len(layouts) == PICK.num_layouts == 1050
    for index, layout in layouts.items():
        assert PICK.split(index) == (layout["model"], layout["orientation"], layout["position"])
        rocks = (layout["model"], layout["orientation"]) == ("opened_coke_can", "standing")
        distance, angle = departure(PICK.layout(f"grid:{index}").object_pose[0], layout["pose"])
        assert distance < (0.25 if rocks else 0.1), index
        assert angle < (0.21 if rocks else 0.1), index


@pytest.mark.golden
@pytest.mark.parametrize("folder", ["ranking", "ranking_google"])
def test_starts_of_the_ranked_episodes_are_within_the_bound(golden: Path, folder: str) -> None:
    """Every layout once, of both robots, with models (move near v0) that no reset was recorded of."""
    seen = set()
    for key, meta in json.loads((golden / folder / "index.json").read_text()).items():
        if (meta["task"], meta["layout"]) in seen:
            continue
        seen.add((meta["task"], meta["layout"]))
        task = get_task(meta["task"])
        layout = task.layout(meta["layout"], meta.get("variant", "default"))
        with np.load(golden / folder / f"{key}.npz") as arrays:
            for body, pose in zip(task.objects_of(layout.cast), layout.object_pose, strict=True):
                distance, angle = departure(pose, arrays[f"object.{body.name}"][0])
                assert distance < 1.0, (key, body.name)
                assert angle < 0.5, (key, body.name)
    assert len(seen) == {"ranking": 24, "ranking_google": 40}[folder]


@pytest.mark.golden
def test_every_recorded_start_has_a_use(golden: Path) -> None:
    """Without its row a start would be more than 0.1 mm or 0.1 degrees off (the can's: than in its own recordings)."""
    starts, cubes = dict(pick_starts()), {"green_cube_3cm": "cube"}
    turns = {"horizontal": ("flat", np.pi), "vertical": ("flat", np.pi / 2), "standing": ("upright", 0.0)}
    words = {shape for shape, _ in RESTS}
    for layout in recorded(golden).values():
        model, orientation, position = layout["model"], layout["orientation"], layout["position"]
        shape = cubes.get(model) or next((word for word in words if word in model.split("_")), None)
        if shape is None or starts.pop((shape, orientation, str(position)), None) is None:
            continue
        other = starts.get((shape, orientation, "*"))
        pose = resting(model, *turns[orientation], (0.0, 0.0), 0.0) if other is None else other
        distance, angle = departure(pose, layout["pose"] - (*GRID[position], 0.87, 0, 0, 0, 0))
        assert distance > 0.1 or angle > 0.1 or (shape, orientation) == ("coke", "standing"), (model, position)
    assert all(position == "*" for _, _, position in starts)


@pytest.mark.golden
def test_drawn_objects_rest_as_recorded_ones_do(golden: Path) -> None:
    """Height and tilt of every region layout are those of some recorded start of the same object and orientation."""
    rests: dict[str, list[tuple[float, np.ndarray]]] = {}
    for layout in recorded(golden).values():
        down = Rotation.from_quat(layout["pose"][3:], scalar_first=True).inv().apply([0, 0, -1])
        rests.setdefault(layout["model"], []).append((layout["pose"][2], down))
    for k in range(150):
        layout = PICK.layout(f"region:{k}")
        pose = layout.object_pose[0]
        down = Rotation.from_quat(pose[3:], scalar_first=True).inv().apply([0, 0, -1])
        near = [abs(z - pose[2]) < 1e-4 and down @ other > np.cos(np.deg2rad(0.1)) for z, other in rests[layout.cast]]
        assert any(near), (k, layout.cast)


def test_the_plain_slim_can_of_move_near_does_not_stand_like_the_baked_one() -> None:
    """The two have different meshes (133.4 and 132.1 mm long) and rest 0.4 mm apart in height."""
    task = TASKS["google_robot_move_near"]
    plain, baked = (task.layout("grid:24", look) for look in ("aggregation", "default"))
    assert plain.cast.split("+")[1] == "opened_redbull_can"
    np.testing.assert_allclose(plain.object_pose[1, 2], 0.87 + 0.065552, atol=5e-6)
    np.testing.assert_allclose(baked.object_pose[1, 2], 0.935107, atol=1e-6)
