"""Puts the original's looks on a built-in scene: shapes that are only seen are taken off, the original's put on.

Where a photograph will stand behind the foreground, everything else is painted in the key's colour, and so is what
hides foreground without being part of it (table top, sink); see
:mod:`vlaser_gym.envs.engines.mujoco.original.backdrop`.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import mujoco
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.mujoco import meshes, textures
from vlaser_gym.envs.engines.mujoco.objects import VISUAL_GROUP, add_visual
from vlaser_gym.envs.engines.mujoco.original.backdrop import KEY
from vlaser_gym.envs.engines.mujoco.original.lights import set_lights
from vlaser_gym.envs.engines.mujoco.original.parts import Part, load_parts, plain_parts
from vlaser_gym.envs.engines.mujoco.original.urdf import Floats, read_visuals
from vlaser_gym.envs.robots import Robot, get_setup
from vlaser_gym.envs.tasks.base import Task
from vlaser_gym.envs.tasks.variants import Variant

#: Half size of the box around the scene that is painted in the key, m. The cameras see 10 m.
_BACKDROP = 4.0
#: Objects that photographs of their scene show already: they hide others, and are not seen.
_ALWAYS_OVERLAID = ("sink", "dummy_sink_target_plane")
#: sRGB of models whose mesh could not be obtained and is not stood in for by the pack.
_PLAIN: dict[str, tuple[float, float, float]] = {"eggplant": (0.36, 0.2, 0.42), "blue_plastic_bottle": (0.2, 0.35, 0.7)}
_PLAIN_CAN = (0.24, 0.32, 0.62)
#: How much of the emitted light of a glowing surface is fixed; the rest follows the lamps.
_GLOW = 9.0


def dress(
    spec: mujoco.MjSpec,
    task: Task,
    variant: Variant,
    cast: str,
    pack: AssetPack,
    *,
    photograph: bool,
    whole_robot: bool,
) -> None:
    """Change what the scene of a task shows; what it does stays.

    Args:
        spec: a scene in the built-in look, not compiled yet.
        task, variant, cast: that it was built from.
        pack: where the original's files are.
        photograph: a photograph will be put behind the foreground.
        whole_robot: also links that the policy's camera never sees are dressed.

    Raises:
        MissingAssetError: if a file is missing or damaged.
    """
    objects = task.objects_of(cast)
    # Objects of one's own have one look only.
    keep = {f"object:{obj.name}" for obj in objects if obj.shape is not None} | (set() if photograph else {"world"})
    for geom in list(spec.geoms):
        if geom.group == VISUAL_GROUP and not (_is_cabinet(geom) or geom.parent.name in keep):
            spec.delete(geom)
    if photograph:
        # Where the arm comes near, the original's camera looks into it.
        spec.visual.map.znear = get_setup(task.robot_setup).camera.near
        _add_backdrop(spec)
    gain = set_lights(spec, variant)
    for material in spec.materials:
        if material.name.startswith("cabinet/"):
            material.rgba = (*np.minimum(gain * material.rgba[:3], 1), 1)
    robot = get_setup(task.robot_setup).robot
    links = {link.name for link in robot.links} - (set() if whole_robot else set(robot.unseen_links))
    _dress_robot(spec, robot, links, variant, pack, gain)
    for obj in objects:
        if obj.shape is not None:
            continue
        if photograph and obj.name in _ALWAYS_OVERLAID:
            _paint_contacts(spec.body(f"object:{obj.name}"))
        else:
            look = pack.model_look(obj.name)
            if look is not None:
                parts = load_parts(pack, look)
            else:
                parts = plain_parts(pack.model_collision(obj.name), _PLAIN.get(obj.name, _PLAIN_CAN))
            _add_parts(spec, spec.body(f"object:{obj.name}"), f"{obj.name}/original", parts, gain=gain)


def _is_cabinet(geom: mujoco.MjsGeom) -> bool:
    """The built-in cabinet is the original's, box by box and in its colours."""
    return bool(geom.name.startswith(("scene/cabinet", "part:")))


def _add_backdrop(spec: mujoco.MjSpec) -> None:
    """The key all around, and over what the world's contact shapes (the table top) hide."""
    textures.add_material(spec, "key", rgba=(*(KEY / 255), 1.0), specular=0.0, emission=1.0)
    size = (-1e3 * _BACKDROP, 1e3 * _BACKDROP)
    box = meshes.box(size, size, size)
    inside = meshes.Surface(box.vertices, box.faces[:, ::-1], box.uv)
    mesh = meshes.add_surface(spec, "scene/backdrop", inside)
    kind = mujoco.mjtGeom.mjGEOM_MESH
    # Bodies are drawn in their order: the last one's pixels are filled only where nothing else is.
    body = spec.worldbody.add_body(name="scene/backdrop")
    add_visual(body, mesh, type=kind, meshname=mesh, material="key")
    _paint_contacts(spec.worldbody)


def _paint_contacts(body: mujoco.MjsBody) -> None:
    """Show a body's contact shapes in the key: what they hide belongs to the photograph."""
    for geom in list(body.geoms):
        if geom.contype and not _is_cabinet(geom):
            shape = {"pos": geom.pos, "quat": geom.quat, "size": geom.size, "meshname": geom.meshname}
            add_visual(body, f"{geom.name}/key", type=geom.type, material="key", **shape)


def _dress_robot(
    spec: mujoco.MjSpec, robot: Robot, links: set[str], variant: Variant, pack: AssetPack, gain: float
) -> None:
    colour = f"_{variant.robot_colour}" if variant.robot_colour else ""
    folder = PurePosixPath(robot.description).parent
    for i, visual in enumerate(read_visuals(pack.robot(robot.description.format(colour)))):
        if visual.link in links:
            parts = load_parts(pack, pack.robot(str(folder / visual.mesh)))
            body = spec.body(f"link:{visual.link}")
            shine = (0.5, 0.6) if variant.shiny_robot else (0.05, 0.1)
            _add_parts(spec, body, f"{visual.link}/original{i}", parts, visual.pose, visual.scale, gain, shine)


_IDENTITY: Floats = np.array([0.0, 0, 0, 1, 0, 0, 0])


def _add_parts(
    spec: mujoco.MjSpec,
    body: mujoco.MjsBody,
    name: str,
    parts: list[Part],
    pose: Floats = _IDENTITY,
    scale: ArrayLike = (1.0, 1.0, 1.0),
    gain: float = 1.0,
    shine: tuple[float, float] = (0.0, 0.0),
) -> None:
    for i, part in enumerate(parts):
        mesh = f"{name}.{i}"
        spec.add_mesh(
            name=mesh,
            uservert=(part.vertices * np.asarray(scale)).ravel(),
            usernormal=part.normals.ravel(),
            usertexcoord=part.uv.ravel(),
            userface=part.faces.ravel(),
            userfacenormal=part.faces.ravel(),
            userfacetexcoord=part.faces.ravel(),
            inertia=mujoco.mjtMeshInertia.mjMESH_INERTIA_SHELL,
        )
        material = _material(spec, mesh, part, gain, shine)
        kind = mujoco.mjtGeom.mjGEOM_MESH
        add_visual(body, mesh, type=kind, meshname=mesh, material=material, pos=pose[:3], quat=pose[3:])


def _material(spec: mujoco.MjSpec, name: str, part: Part, gain: float, shine: tuple[float, float]) -> str:
    colour: NDArray[np.floating[Any]] = part.colour
    emission, image = 0.0, part.image
    if not part.glows:
        colour = np.ones(3) if image.size else np.minimum(gain * colour, 1)
        image = np.clip(np.round(gain * part.colour * image), 0, 255).astype(np.uint8)
    else:
        # Fixed function lighting adds lamps to what glows: they are made weak against it.
        emission, colour = _GLOW, part.colour / (_GLOW + 1)
    return textures.add_material(
        spec,
        name,
        image if image.size else None,
        rgba=(*colour, 1.0),
        specular=0.0 if part.glows else shine[0],
        shininess=shine[1],
        emission=emission,
    )
