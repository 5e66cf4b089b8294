"""The appearance of the WidowX objects: generated surfaces in the actor frame, and textures.

Sizes follow the original's models (ManiSkill2_real2sim, ef7a4d4): measured stations along x with centre and half sizes,
profiles with radius and height.
"""

from __future__ import annotations

import numpy as np

from vlaser_gym.envs.engines.mujoco import meshes, textures
from vlaser_gym.envs.engines.mujoco.meshes import Surface

Rows = list[tuple[float, ...]]


def carrot_root() -> Surface:
    """Stations along x: x, centre y and z, half width and height (mm)."""
    stations: Rows = [
        (-62, -0.3, -4, 1.5, 1.5),
        (-60.5, -0.3, -4.3, 4, 3.5),
        (-55, 0, -4.2, 6, 5.2),
        (-46, 0, -4.2, 7.6, 7),
    ]
    stations += [(-36, 0, -4.4, 10, 9.3), (-24, 0.2, -3.6, 12.2, 12), (-12, 0.2, -2.8, 13.8, 13.8)]
    stations += [(0, 0, -2.2, 15.4, 15), (10, 0, -1.6, 16, 15.3), (18, 0.2, -1, 15, 14.3), (23, 0.2, 0, 12, 11)]
    return meshes.oval([*stations, (26, 0.2, 2, 7, 6.5), (27, 0.2, 4, 3, 3)])


def carrot_skin() -> textures.Image:
    """The carrot's texture: orange with darker rings."""
    light, dark = (255, 140, 48), (226, 104, 26)
    rings = [(0.0, dark), (0.12, light), (0.2, light), (0.23, dark), (0.26, light), (0.44, light), (0.47, dark)]
    return textures.banded(
        [*rings, (0.5, light), (0.7, light), (0.73, dark), (0.76, light), (0.93, light), (1.0, dark)]
    )


def carrot_leaves() -> Surface:
    """The tuft at +x."""
    stations: Rows = [(22, 0.2, 5, 4, 4), (28, 0, 8.6, 6.5, 7.5), (37, -0.5, 9.8, 7.5, 9), (46, -1, 10.4, 9.2, 10)]
    return meshes.oval([*stations, (53, -1.2, 11, 9.6, 9.6), (54, -1.2, 11, 4, 4)], count=12)


def plate() -> Surface:
    """A shallow dish with a flat rim, the underside hollow."""
    profile: Rows = [(0, 0.9), (23, 0.9), (27, 0), (33.1, 0), (41.8, 4.6), (54.3, 4.6), (55, 5.2), (55, 5.5), (54.3, 6)]
    profile += [(42.8, 6), (41, 5.7), (39.5, 5), (32.7, 1.6), (30, 1.4), (0, 1.4)]
    return meshes.turned([(r * meshes.MILLIMETRE, z * meshes.MILLIMETRE) for r, z in profile], 40)


def spoon_handle() -> Surface:
    """The thick end is at +x."""
    stations: Rows = [(-25, 0, 0.2, 4.4, 2.2), (-18, 0, 1.3, 4.9, 5), (-8, 0, 0.9, 6.6, 8.7), (2, 0, 0.5, 8, 10.3)]
    stations += [(12, 0, 0.35, 9.2, 11.1), (22, 0.1, 0.65, 10, 11.6), (32, 0.2, 0.8, 10.5, 11.7)]
    stations += [(42, 0.3, 0.9, 10.9, 11.6), (52, 0.4, 1.1, 10.9, 11.1), (60, 0.8, 2, 9.2, 8.6)]
    return meshes.oval([*stations, (65, 0.8, 3, 5.5, 5.5), (67.3, 0.8, 4, 1.5, 1.5)])


def handle_green() -> textures.Image:
    """Green, paler where light falls through."""
    deep, pale = (150, 186, 62), (206, 232, 134)
    return textures.banded([(0.0, pale), (0.3, (190, 220, 108)), (0.7, pale), (0.95, (188, 218, 96)), (1.0, deep)])


def spoon_bowl() -> Surface:
    """A sheet bent upwards at its edges. Stations: x, half width, height of the edge, height of the middle (mm)."""
    stations: Rows = [(-72.6, 3, 14.5, 12.5), (-70, 8, 12.5, 8.5), (-66, 11.3, 9.5, 4), (-60, 14.6, 6.2, -2)]
    stations += [(-53, 17, 3.8, -6), (-46, 17.6, 2.2, -7.6), (-40, 17.2, 1.6, -7.6), (-34, 15, 1.5, -6.6)]
    stations += [(-28, 10, 1.8, -4), (-23, 4.5, 2.2, -1.8)]
    across = np.linspace(-1, 1, 9)
    sections = []
    for x, half, edge, middle in stations:
        depth = middle + (edge - middle) * across**2
        below = np.stack([np.full(9, x), half * across, depth], -1)
        above = below[::-1] + np.array([0, 0, 1.4])
        sections.append(np.concatenate([below, above]))
    return meshes.lofted(np.array(sections) * meshes.MILLIMETRE)


def towel() -> Surface:
    """Folded once: rounded edges, the top a little higher in the middle."""
    profile: Rows = [(4, -4.9), (1, -4.4), (0, -2.5), (0, -0.5), (0.8, 1.6), (2.4, 3), (6, 4), (14, 4.6), (30, 5)]
    layers = []
    for inset, z in profile:
        side = (-50.5 + inset, 49.5 - inset)
        layers.append(meshes.rounded_rectangle(side, (-50 + inset, 49.7 - inset), z, (6, 6, 6, 6)))
    return meshes.mapped(meshes.lofted(np.array(layers)), (0, 1), 0.1)


def terry() -> textures.Image:
    """Light blue cloth with a darker stripe along two sides."""
    cloth = textures.fabric((150, 196, 216), (186, 226, 242), seed=5).astype(np.float64)
    across = (np.arange(len(cloth)) / len(cloth) + 0.5) % 1.0
    stripe = (np.abs(across - 0.14) < 0.045) | (np.abs(across - 0.86) < 0.045)
    cloth[:, stripe] *= np.array([0.72, 0.84, 0.93])
    return np.asarray(np.round(cloth), np.uint8)


def eggplant() -> Surface:
    """Stations along x: x, centre y and z, half width and height (mm); the stalk is at -x."""
    stations: Rows = [(-44.8, 0.5, 12.2, 1.2, 1.2), (-43.6, 0.5, 11.8, 2.4, 2.6), (-41, 0.5, 10.2, 4.4, 4.8)]
    stations += [(-36, 0.5, 6.5, 8.5, 9.4), (-31, 0.6, 5, 10.6, 11.4), (-26, 0.65, 3.9, 12.2, 13.1)]
    stations += [(-20, 0.5, 2.3, 14, 15), (-14, 0.3, 1, 15.6, 16.4), (-8, 0.2, 0.1, 16.8, 17.5)]
    stations += [(-2, 0, -0.6, 17.8, 18.3), (4, -0.1, -1, 18.4, 18.8), (10, -0.15, -1.3, 18.8, 19)]
    stations += [(16, -0.3, -1.5, 18.2, 18.5), (21, -0.4, -1.7, 17, 17.4), (26, -0.5, -1.9, 14.4, 14.9)]
    return meshes.oval([*stations, (30, -0.5, -2, 10.4, 10.8), (32.6, -0.4, -2, 6, 6.2), (33.7, -0.3, -1.9, 2, 2)], 24)


def eggplant_skin() -> textures.Image:
    """Purple with a green calyx whose tips run down the fruit."""
    size = 128
    purple = textures.banded([(0.0, (96, 48, 122)), (0.5, (112, 58, 138)), (1.0, (84, 40, 108))], size).astype(float)
    v, u = (np.mgrid[:size, :size] + 0.5) / size
    calyx = v < 0.1 + 0.07 * np.abs(np.cos(2.5 * 2 * np.pi * u))
    purple[calyx] = (86, 128, 62)
    return np.asarray(np.round(purple), np.uint8)


def _sink_half(y: tuple[float, float], ridge: int, rings: Rows, tilt: float = 0.0) -> Surface:
    """A basin with its part of the rim, ``ridge`` saying which end of ``y`` is inside the sink.

    Rings of the basin: x from, to, y from, to, height, corner radius (mm). The bottom, all rings below 45 mm, rises
    with slope ``tilt`` from y = 75 mm down to the ridge.
    """
    x = (-137.0, 138.0)
    layers = []
    for inset, height, radius in ((0.0, 10, 14), (0.0, 88, 14), (3.0, 95, 14), (9.0, 98, 14)):
        low, high = (y[0], y[1] - inset) if ridge == 0 else (y[0] + inset, y[1])
        turn = (radius, radius, 0.01, 0.01) if ridge == 0 else (0.01, 0.01, radius, radius)
        layers.append(meshes.rounded_rectangle((x[0] + inset, x[1] - inset), (low, high), height, turn))
    for x0, x1, y0, y1, z, r in rings:
        layers.append(meshes.rounded_rectangle((x0, x1), (y0, y1), z, (r,) * 4))
        if z < 45:
            layers[-1][:, 2] += tilt * np.maximum(0, 0.075 - layers[-1][:, 1])
    # Where the halves meet there is no wall, and none may bend the rim's normals.
    return meshes.without_wall(meshes.lofted(np.array(layers), bottom=False), 1, y[ridge])


def sink_body() -> Surface:
    """Two basins, the rim around them, and a raised strip behind the smaller one."""
    basin: Rows = [(-56, 108, -34, 171, 98, 28), (-53, 104, -31, 169, 95, 28), (-49, 99, -25, 167, 66, 26)]
    basin += [(-45, 97, -20, 164, 50, 24), (-39, 94, -14, 160, 40.5, 22), (-30, 86, -6, 152, 39.6, 20)]
    basin += [(0, 56, 65, 105, 39.1, 15)]
    drainer: Rows = [(-62, 107, -158, -42, 98, 24), (-60, 104, -156, -45, 94, 22), (-56, 98, -153, -48, 64, 20)]
    drainer += [(-48, 94, -148, -52, 50, 16), (-26, 90, -142, -56, 45, 14), (10, 50, -110, -80, 45, 8)]
    block = [meshes.rounded_rectangle((-121 + i, -82 - i), (-166 + i, -27 - i), z, (8, 8, 8, 8)) for i, z in
             ((0, 90), (0, 110), (2, 115), (6, 117))]  # fmt: skip
    halves = [_sink_half((-38, 196), 0, basin, tilt=0.042), _sink_half((-203, -38), 1, drainer)]
    return meshes.joined([*halves, meshes.lofted(np.array(block), bottom=False)])


def drain() -> Surface:
    """A ring and a hole on the large basin's bottom, at (30, 78) mm."""
    ring = meshes.turned([(0.021, 0.0392), (0.018, 0.0402), (0.018, 0.0396)], 20, closed=False)
    hole = meshes.turned([(0.006, 0.0396), (0.006, 0.0404), (0, 0.0404)], 12, closed=False)
    both = meshes.joined([ring, hole])
    return Surface(both.vertices + np.array([0.03, 0.078, 0]), both.faces, both.uv)


def basket() -> Surface:
    """A wire basket: a frame on the rim of the smaller basin, ribs across and along its bottom."""
    frame = [(0, 98.5, 30), (4, 102.5, 28), (10, 104, 24), (16, 102.5, 20), (18, 98.5, 20), (17.5, 94, 20)]
    outer = [meshes.rounded_rectangle((-73 + i, 115 - i), (-169 + i, -32 - i), z, (r,) * 4, arc=5) for i, z, r in frame]
    edge = meshes.lofted(np.array(outer), bottom=False, top=False)
    ribs = [_rib([(x, -154, 100), (x, -148, 68), (x, -138, 51), (x, -62, 51), (x, -53, 68), (x, -47, 100)])
            for x in (-36, -12, 12, 36, 60, 84)]  # fmt: skip
    along = [_rib([(-58, y, 100), (-50, y, 66), (-28, y, 53), (90, y, 53), (94, y, 66), (100, y, 100)])
             for y in (-130, -104, -78)]  # fmt: skip
    return meshes.joined([edge, *ribs, *along])


def _rib(path: list[tuple[float, float, float]]) -> Surface:
    return meshes.tube(path, 2.4, sides=5)
