"""Variants of a task's scene, as data: background, light, robot colours, cabinet look, camera, distractors.

A variant is named in an episode's address. Engines read its fields: one with the original's assets loads what they
name, one without builds stand-ins of the same kind and number. Source: SimplerEnv 4ab7178 (``scripts/*``) and
ManiSkill2_real2sim ef7a4d4.

*Visual matching* puts the foreground (robot, objects, cabinet) over a photograph of the real scene and repeats every
episode with four colourings of the robot. *Variant aggregation* shows no photograph and changes one thing at a time.
"""

from __future__ import annotations

from dataclasses import dataclass

#: Colourings of the robot in visual matching: suffixes of the original's robot descriptions.
ROBOT_COLOURS = (
    "",
    "recolor_tabletop_visual_matching_1",
    "recolor_tabletop_visual_matching_2",
    "recolor_cabinet_visual_matching_1",
)


@dataclass(frozen=True)
class Variant:
    """The appearance of a scene and its further objects.

    Attributes:
        name: as in an address.
        scene: the original's scene (stage mesh).
        overlay: the layout's photograph stands behind the foreground and hides the scene.
        light: key of :data:`LIGHTS`.
        robot_colour: one of :data:`ROBOT_COLOURS`.
        shiny_robot: the robot's material is the original's default (specular 0.9, roughness 0.3).
        station: key of ``STATIONS`` in :mod:`vlaser_gym.envs.tasks.cabinet`; empty where there is no cabinet.
        solid_handles: the drawers' handles collide; in the benchmark they are only seen.
        head_tilt: start of the robot's head tilt, rad; None for the setup's.
        distractors: model ids of objects that lie about.
    """

    name: str = "default"
    scene: str = ""
    overlay: bool = True
    light: str = "default"
    robot_colour: str = ""
    shiny_robot: bool = True
    station: str = ""
    solid_handles: bool = False
    head_tilt: float | None = None
    distractors: tuple[str, ...] = ()


@dataclass(frozen=True)
class Light:
    """A directional light: direction of travel, strength (all three colours alike), whether it casts shadows."""

    direction: tuple[float, float, float]
    strength: float
    shadow: bool = False


@dataclass(frozen=True)
class Lighting:
    """Ambient strength and directional lights of a scene."""

    ambient: float
    lights: tuple[Light, ...]


_DOWN, _LEFT, _RIGHT = (0.0, 0.0, -1.0), (-1.0, -0.5, -1.0), (1.0, 1.0, -1.0)


def _table(down: float, left: float, right: float) -> Lighting:
    lights = ((_DOWN, down), (_LEFT, left), (_RIGHT, right))
    return Lighting(0.3, tuple(Light(direction, strength) for direction, strength in lights if strength))


def _room(strength: float) -> Lighting:
    sides = (Light((-1.0, 1.0, -0.05), 0.5), Light((-1.0, -1.0, -0.05), 0.5))
    return Lighting(0.3, (Light((-0.2, 0.0, -1.0), strength, shadow=True), *sides))


#: ``drawer_simple`` is that of visual matching with the cabinet, the other ``drawer_*`` those of variant aggregation.
LIGHTS: dict[str, Lighting] = {
    "default": _table(2.2, 0.7, 0.7),
    "slightly_brighter": _table(3.6, 1.3, 1.3),
    "slightly_darker": _table(0.8, 0.0, 0.8),
    "sink": _table(0.3, 0.0, 0.0),
    "drawer_simple": Lighting(1.0, (Light((-0.25881905, 0.0, -0.96592583), 1.0),)),
    "drawer": _room(1.0),
    "drawer_brighter": _room(2.0),
    "drawer_darker": _room(0.5),
}
