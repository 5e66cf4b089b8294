"""Objects from meshes against closed forms: volumes and inertia by hand, postures and grasps by geometry."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import trimesh
from solids import SOLIDS, plate, properties

from vlaser_gym.commands.assets import arguments
from vlaser_gym.conventions.rotations import matrix_from_quaternion
from vlaser_gym.envs.modelling import pieces, source
from vlaser_gym.envs.modelling.files import shape_files, write_pieces
from vlaser_gym.envs.modelling.making import Made, Recipe, describe, make_object
from vlaser_gym.envs.tasks.own_objects import digest, load_object
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import InvalidConfigError, StorageError

DENSITY = 600.0


def written(name: str, folder: Path) -> Path:
    mesh, _ = SOLIDS[name]()
    mesh.export(folder / f"{name}.stl")
    return folder / f"{name}.stl"


@pytest.mark.parametrize("name", SOLIDS)
def test_mass_and_inertia_are_the_solid_s(name: str, tmp_path: Path) -> None:
    """Within 2 % of closed forms: polygons for circles lose 0.16 % of area and 0.3 % of inertia."""
    mesh, _, repairs = source.read_solid(written(name, tmp_path), "mm")
    found = source.mass_properties(mesh, DENSITY, None)
    volume, centre, inertia = properties(SOLIDS[name]()[1])
    assert not repairs
    assert found.mass == pytest.approx(DENSITY * volume * 1e-9, rel=0.02)
    middle = SOLIDS[name]()[0].bounds.mean(0)
    assert found.com == pytest.approx((centre - middle) * 1e-3, abs=2e-4)
    # The tensor itself, put together again from principal axes and moments.
    axes = matrix_from_quaternion(np.array(found.com_rotation))
    tensor = axes @ np.diag(found.inertia) @ axes.T
    assert tensor == pytest.approx(DENSITY * inertia * 1e-15, rel=0.02, abs=0.02 * DENSITY * inertia.max() * 1e-15)
    given = source.mass_properties(mesh, None, 0.123)
    assert given.mass == pytest.approx(0.123)
    assert np.array(given.inertia) / found.inertia == pytest.approx(0.123 / found.mass)


def test_an_open_mesh_is_repaired_where_holes_are_small_and_refused_elsewhere(tmp_path: Path) -> None:
    mesh = trimesh.creation.box((30, 30, 30))
    holed = trimesh.Trimesh(mesh.vertices, mesh.faces[1:])
    holed.export(tmp_path / "holed.stl")
    solid, _, repairs = source.read_solid(tmp_path / "holed.stl", "mm")
    assert repairs == ["holes were closed with 1 triangles"]
    assert solid.volume == pytest.approx(2.7e-5)
    cup = trimesh.creation.cylinder(20, 50, sections=40)
    top = np.abs(cup.triangles_center[:, 2] - 25) < 1e-6
    trimesh.Trimesh(cup.vertices, cup.faces[~top]).export(tmp_path / "cup.stl")
    sheet = trimesh.Trimesh([(0, 0, 0), (30, 0, 0), (0, 30, 0)], [(0, 1, 2)])
    sheet.export(tmp_path / "sheet.stl")
    with pytest.raises(InvalidConfigError, match=r"3 edges belong to one triangle only and 0 to more") as error:
        source.read_solid(tmp_path / "sheet.stl", "mm")
    assert "\n" not in str(error.value)


def test_a_mesh_turned_inside_out_is_turned_back(tmp_path: Path) -> None:
    mesh = trimesh.creation.box((30, 30, 30))
    mesh.invert()
    mesh.export(tmp_path / "inverted.stl")
    solid, _, repairs = source.read_solid(tmp_path / "inverted.stl", "mm")
    assert solid.volume == pytest.approx(2.7e-5)
    assert len(repairs) <= 1


@pytest.mark.parametrize(
    ("name", "unit", "sentence"),
    [
        ("plate.stl", "m", r"longest side of .* is 90 m with unit=m; .*unit=mm would make it 0.09 m"),
        ("nothing.stl", "mm", "there is no file"),
        ("text.stl", "mm", "cannot be read|holds no triangles"),
    ],
)
def test_what_is_no_mesh_of_a_likely_size_is_one_sentence(name: str, unit: str, sentence: str, tmp_path: Path) -> None:
    written("plate", tmp_path)
    (tmp_path / "text.stl").write_text("no mesh at all")
    with pytest.raises(InvalidConfigError, match=sentence) as error:
        source.read_solid(tmp_path / name, unit)
    assert "\n" not in str(error.value)


def test_without_coacd_only_what_is_convex_is_made(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(__import__("sys").modules, "coacd", None)
    mesh, _, _ = source.read_solid(written("plate", tmp_path), "mm")
    (hull,) = pieces.convex_pieces(mesh, 0.05, 32)
    assert sorted(map(tuple, np.round(np.abs(hull), 6))) == [(0.045, 0.0225, 0.004)] * 8
    mesh, _, _ = source.read_solid(written("l_piece", tmp_path), "mm")
    with pytest.raises(InvalidConfigError, match=r"pip install 'vlaser-gym\[meshes\]'"):
        pieces.convex_pieces(mesh, 0.05, 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """The plate, which is convex and so is made in a second."""
    folder = tmp_path_factory.mktemp("made")
    recipe = Recipe("mm", DENSITY, colour=(0.2, 0.4, 0.6), drops=16)
    return make_object(written("plate", folder), folder / "objects" / "tile", recipe)


def test_a_plate_rests_on_its_large_sides_most(made: Made) -> None:
    first, second = made.thing.rests[:2]
    for rest in (first, second):
        assert rest.height == pytest.approx(0.004, abs=2e-4)
        assert abs(matrix_from_quaternion(np.array(rest.rotation))[2, 2]) == pytest.approx(1, abs=1e-3)
    assert first.share + second.share > 0.6
    # Its outline is the plate's own rectangle.
    assert np.abs(first.footprint).max(0) == pytest.approx([0.045, 0.0225], abs=5e-4)


def test_it_is_grasped_across_its_short_side_as_low_as_the_fingers_reach(made: Made) -> None:
    grasp = max(made.thing.spec.grasps, key=lambda one: abs(one.up[2]))
    assert np.abs(grasp.axis) == pytest.approx([0, 1, 0], abs=0.05)
    # 15.6 mm from the tool centre point to the finger tips, which stay 1.5 mm above the ground.
    assert abs(grasp.point[2]) == pytest.approx(0.0171 - 0.004, abs=5e-4)
    assert np.hypot(*grasp.point[:2]) < 0.01


def test_what_is_written_is_what_is_read(made: Made, tmp_path: Path) -> None:
    again = load_object(made.folder)
    assert again.spec == made.thing.spec
    assert [rest.rotation for rest in again.rests] == [rest.rotation for rest in made.thing.rests]
    assert again.spec.shape.colour == (0.2, 0.4, 0.6)
    assert len(again.spec.shape.faces) == 12
    lines = describe(made)
    assert lines[0] == "tile: 90 x 45 x 8 mm, 32.4 cm^3, 19.4 g"
    changed = shutil.copytree(made.folder, tmp_path / "changed")
    assert digest(changed) == digest(made.folder)
    numbers = changed / "object.yaml"
    numbers.write_text(numbers.read_text().replace("mass: 0.019", "mass: 0.02"))
    assert digest(changed) != digest(made.folder)
    assert load_object(changed).spec.mass > made.thing.spec.mass
    with pytest.raises(StorageError, match=r"expected a folder with object.yaml"):
        load_object(tmp_path)


def test_other_simulators_get_the_same_shapes_as_files(made: Made, tmp_path: Path) -> None:
    """SAPIEN reads a group of the file as a convex piece, and the colour as a texture."""
    touching, seen = shape_files(made.thing.spec.shape, tmp_path)
    assert touching.read_text().count("o piece") == 1
    mesh = trimesh.load(touching, force="mesh")
    assert mesh.volume == pytest.approx(made.volume, rel=1e-6)
    assert trimesh.load(seen, force="mesh").extents == pytest.approx([0.09, 0.045, 0.008])
    assert shape_files(made.thing.spec.shape, tmp_path) == (touching, seen)
    assert len(list(tmp_path.iterdir())) == 1


def test_pieces_stay_apart_on_their_way_through_a_file(made: Made, tmp_path: Path) -> None:
    """Two cubes that share a side, which a mesh library would make one body of."""
    cube = np.array([[x, y, z] for x in (0.0, 0.02) for y in (0.0, 0.02) for z in (0.0, 0.02)])
    folder = shutil.copytree(made.folder, tmp_path / "two")
    write_pieces(folder / "collision.obj", replace(made.thing.spec.shape, hulls=(cube, cube + [0.02, 0, 0])))
    first, second = load_object(folder).spec.shape.hulls
    for hull, expected in ((first, cube), (second, cube + [0.02, 0, 0])):
        assert sorted(map(tuple, np.round(hull, 9))) == sorted(map(tuple, np.round(expected, 9)))


def test_a_scene_with_it_is_at_rest_and_weighs_what_it_should(made: Made, tmp_path: Path) -> None:
    """Left alone it stays where it lies, and the engine's own numbers are the object's."""
    (tmp_path / "task.yaml").write_text(f"instruction: x\nsource: {made.folder}\ntarget: towel\ngrid: 2\n")
    env = SceneVectorEnv(
        str(tmp_path / "task.yaml"), 1, observe=("state",), record_states=True, engine_options={"threads": 1}
    )
    env.reset(options={"layout": 1})
    before = env.lanes[0].reading.object_pose[0].copy()
    env.step_chunk(np.tile([0, 0, 0, 0, 0, 0, 1.0], (1, 5, 1)))
    assert env.lanes[0].reading.object_pose[0] == pytest.approx(before, abs=1e-3)
    (pool,) = env.engine._pools.values()
    assert pool.scene.model.body("object:tile").mass[0] == pytest.approx(made.thing.spec.mass)
    env.close()


def test_names_and_folders_that_cannot_be_taken(made: Made, tmp_path: Path) -> None:
    mesh = written("plate", tmp_path)
    with pytest.raises(InvalidConfigError, match="none of the gym's own objects; got 'apple'"):
        make_object(mesh, tmp_path / "apple", Recipe("mm"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    with pytest.raises(StorageError, match="holds something else than an object"):
        make_object(mesh, tmp_path / "mine", Recipe("mm"))


def test_the_command_s_words() -> None:
    assert arguments(["object", "mug.obj", "unit=mm"]) == ["action=object", "source=mug.obj", "unit=mm"]


@pytest.mark.slow
@pytest.mark.parametrize("name", SOLIDS)
def test_five_solids_rest_and_are_held(name: str, tmp_path: Path) -> None:
    """Each is held in at least 8 of 10 layouts in the likeliest posture that has a grasp."""
    pytest.importorskip("coacd")
    from vlaser_gym.evaluation.holding import tries_to_hold

    made = make_object(written(name, tmp_path), tmp_path / name, Recipe("mm", DENSITY))
    assert made.thing.rests
    assert made.pieces_volume == pytest.approx(made.volume, rel=0.25)
    volume, _, _ = properties(SOLIDS[name]()[1])
    assert made.thing.spec.mass == pytest.approx(DENSITY * volume * 1e-9, rel=0.02)
    held = tries_to_hold(replace(made.thing, rests=made.thing.rests[:3]), 10)
    assert held
    assert max(held.values()) >= 8


def test_the_analytic_plate() -> None:
    """The oracle itself, by the textbook: m/12 (b^2 + c^2)."""
    volume, centre, inertia = properties(plate()[1])
    assert volume == 90 * 45 * 8
    assert centre.tolist() == [0, 0, 4]
    assert inertia.diagonal() == pytest.approx(volume / 12 * np.array([45**2 + 8**2, 90**2 + 8**2, 90**2 + 45**2]))
