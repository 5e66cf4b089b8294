"""The original's look on the built-in scenes: same physics, the recorded outlines."""

from __future__ import annotations

from pathlib import Path

import mujoco
import numpy as np
import pytest

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines import make_engine
from vlaser_gym.envs.engines.mujoco.scene import build_scene
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import MissingAssetError
from vlaser_gym.evaluation.parity import Recordings
from vlaser_gym.evaluation.pictures import compare_pictures

#: Everything in a model that its dynamics depend on, contact shapes aside.
DYNAMICS = (
    "body_mass",
    "body_inertia",
    "body_pos",
    "body_quat",
    "body_ipos",
    "dof_damping",
    "dof_armature",
    "jnt_range",
)


@pytest.fixture(scope="module")
def pack(shared: Path) -> AssetPack:
    return AssetPack(shared / "assets/simplerenv")


def contact_shapes(model: mujoco.MjModel) -> dict[str, list[np.ndarray]]:
    """Name -> pose, size, friction, solver settings and mesh vertices of all that touches."""
    shapes = {}
    for i in range(model.ngeom):
        if model.geom_contype[i] or model.geom_conaffinity[i]:
            shape = [
                getattr(model, f"geom_{name}")[i] for name in ("pos", "quat", "size", "friction", "solref", "solimp")
            ]
            mesh = model.geom_dataid[i]
            start, count = (model.mesh_vertadr[mesh], model.mesh_vertnum[mesh]) if mesh >= 0 else (0, 0)
            shapes[model.geom(i).name] = [*shape, model.mesh_vert[start : start + count]]
    return shapes


@pytest.mark.parametrize("task", ["widowx_put_eggplant_in_basket", "google_robot_move_near"])
def test_only_what_is_seen_differs(pack: AssetPack, task: str) -> None:
    plain = build_scene(get_task(task)).model
    dressed = build_scene(get_task(task), look="original", assets=pack, photograph=True).model
    for name in DYNAMICS:
        # The backdrop is a body more, the last.
        np.testing.assert_array_equal(getattr(plain, name), getattr(dressed, name)[: len(getattr(plain, name))])
    ours, theirs = contact_shapes(plain), contact_shapes(dressed)
    assert list(ours) == list(theirs)
    for name, shape in ours.items():
        for a, b in zip(shape, theirs[name], strict=True):
            np.testing.assert_array_equal(a, b)
    seen = {dressed.geom(i).name for i in range(dressed.ngeom) if dressed.geom_group[i] == 2}
    assert not any("/visual" in name or name.startswith("scene/visual") for name in seen)
    assert any("/original" in name for name in seen)


def test_the_same_actions_end_in_the_same_state(pack: AssetPack) -> None:
    states = []
    for look, options in (("builtin", {}), ("original", {"assets": str(pack.directory)})):
        env = SceneVectorEnv("widowx_stack_cube", 1, look=look, observe=("proprio",), engine_options=options)
        env.reset(options={"layout": [3]})
        for action in np.random.default_rng(1).uniform(-0.02, 0.02, (5, 1, 7)):
            env.step(action)
        states.append(env.engine.get_state()["rows"][0])
        env.close()
    np.testing.assert_array_equal(*states)


@pytest.mark.golden
@pytest.mark.parametrize(
    "task", ["widowx_carrot_on_plate", pytest.param("google_robot_pick_standing_coke_can", marks=pytest.mark.slow)]
)
def test_pictures_have_the_recorded_outlines_and_resemble_them(golden: Path, pack: AssetPack, task: str) -> None:
    (comparison,) = compare_pictures(Recordings(golden), task, str(pack.directory), most=1)
    assert comparison.iou >= 0.99
    assert comparison.object_iou
    assert min(comparison.object_iou.values()) >= 0.99
    assert comparison.ssim >= 0.7
    assert comparison.ssim > comparison.photograph_ssim + 0.3
    # Outside the foreground it is the photograph, to the byte.
    background = ~comparison.recorded.foreground
    same = (comparison.ours == comparison.recorded.picture).all(-1)[background]
    assert same.mean() > 0.999


def test_a_missing_pack_is_named_before_anything_is_built(tmp_path: Path) -> None:
    with pytest.raises(MissingAssetError, match=r"assets fetch.*look=builtin"):
        make_engine("mujoco", 1, "original", {"assets": str(tmp_path / "none")})


def test_a_file_that_is_missing_is_named_when_it_is_needed(pack: AssetPack, tmp_path: Path) -> None:
    for top in ("data", "mani_skill2_real2sim"):
        (tmp_path / top).symlink_to(pack.directory.resolve() / top)
    models = tmp_path / "data/custom/models"
    (tmp_path / "data").unlink()
    models.mkdir(parents=True)
    for model in (pack.directory / "data/custom/models").resolve().iterdir():
        if model.name != "bridge_carrot_generated_modified":
            (models / model.name).symlink_to(model)
    with pytest.raises(MissingAssetError, match=r"bridge_carrot_generated_modified/textured\.dae is missing"):
        build_scene(get_task("widowx_carrot_on_plate"), look="original", assets=AssetPack(tmp_path), photograph=True)
