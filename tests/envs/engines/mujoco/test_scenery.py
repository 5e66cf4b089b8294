"""Tables, sink and lights: against measured heights of the original's collision pieces."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from vlaser_gym.envs.engines.mujoco.objects import add_object
from vlaser_gym.envs.engines.mujoco.scenery import add_scenery
from vlaser_gym.envs.tasks import objects as numbers
from vlaser_gym.errors import UnknownNameError

COLLISION = np.array([0, 0, 0, 1, 0, 0], np.uint8)
VISUAL = np.array([0, 0, 1, 0, 0, 0], np.uint8)


def build(scenery: str, with_sink: bool = False) -> tuple[mujoco.MjModel, mujoco.MjData]:
    spec = mujoco.MjSpec()
    add_scenery(spec, scenery)
    if with_sink:
        add_object(spec, numbers.SINK)
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    return model, data


def height(model: mujoco.MjModel, data: mujoco.MjData, x: float, y: float, groups: np.ndarray = COLLISION) -> float:
    """Height of the first thing below (x, y, 1.5)."""
    hit = np.zeros(1, np.int32)
    return 1.5 - mujoco.mj_ray(model, data, np.array([x, y, 1.5]), np.array([0.0, 0, -1]), groups, True, -1, hit)


@pytest.mark.parametrize(("scenery", "top"), [("bridge_table", 0.870), ("bridge_sink", 0.850)])
def test_table_top(scenery: str, top: float) -> None:
    """Extents of the stand-in table with which the original was recorded."""
    model, data = build(scenery)
    for x, y in [(-0.79, -0.64), (0.39, 0.94), (-0.2, 0.1)]:
        assert height(model, data, x, y) == pytest.approx(top, abs=1e-9)
    for x, y in [(-0.81, 0.1), (0.41, 0.1), (-0.2, -0.66), (-0.2, 0.96)]:
        assert height(model, data, x, y) > 2  # the ray meets nothing: mj_ray gives -1
    assert height(model, data, -0.2, -0.2, VISUAL) == pytest.approx(top, abs=1e-3)


# Heights (mm) of the original's 82 collision hulls in the sink's frame, cast from above.
SINK_HEIGHTS = [
    ("large basin", 20, 110, 39.6), ("large basin", 44, 62, 40.4), ("large basin", 68, 26, 42.0),
    ("large basin", -4, 2, 43.3),
    ("its slope", -40, 50, 45.0),
    ("its slope", 8, -22, 56.9), ("basket", 32, -70, 46.9), ("basket", 8, -94, 48.2),
    ("basket", 80, -118, 46.1),
    ("basket", -40, -94, 53.9), ("ridge", 44, -34, 96.1), ("left rim", -88, 26, 99.9),
    ("right rim", 116, 74, 95.3), ("behind the basket", -100, -70, 116.5),
]  # fmt: skip


@pytest.mark.parametrize(("part", "x", "y", "z"), SINK_HEIGHTS)
def test_sink_heights(part: str, x: float, y: float, z: float) -> None:
    model, data = build("bridge_sink", with_sink=True)
    tolerance = 0.5 if part in ("large basin", "basket", "its slope") else 5.0
    model.body_pos[model.body("object:sink").id] = (0, 0, 1.0)  # above the table
    mujoco.mj_forward(model, data)
    assert (height(model, data, x / 1000, y / 1000) - 1.0) * 1000 == pytest.approx(z, abs=tolerance)


@pytest.mark.parametrize(("part", "x", "y", "z"), [row for row in SINK_HEIGHTS if row[0] == "large basin"])
def test_the_bottom_that_is_seen_does_not_hide_the_eggplant(part: str, x: float, y: float, z: float) -> None:
    model, data = build("bridge_sink", with_sink=True)
    model.body_pos[model.body("object:sink").id] = (0, 0, 1.0)
    mujoco.mj_forward(model, data)
    drawn = (height(model, data, x / 1000, y / 1000, VISUAL) - 1.0) * 1000
    assert z - 3 < drawn < z + 1


@pytest.mark.parametrize("scenery", ["bridge_table", "bridge_sink"])
def test_only_the_table_touches_and_no_light_casts_shadows(scenery: str) -> None:
    model, _ = build(scenery)
    touching = [model.geom(g).name for g in range(model.ngeom) if model.geom(g).contype[0]]
    assert touching == ["scene/table"]
    assert all(model.geom(g).name.startswith("scene/") for g in range(model.ngeom))
    assert model.nlight >= 1
    assert not model.light_castshadow.any()


def test_unknown_scenery_names_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="bridge_table"):
        add_scenery(mujoco.MjSpec(), "brige_table")
