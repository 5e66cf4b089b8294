"""Convex pieces that stand for a solid where it touches."""

from __future__ import annotations

from typing import Any

import numpy as np

from vlaser_gym.envs.tasks.base import Floats
from vlaser_gym.registry import import_extra

#: Pieces of less than this share of the solid's volume are left out: they are slivers between others.
_SLIVER = 1e-4
#: What is smaller than its convex hull by no more than this share is convex.
_CONVEX = 1e-3
#: Corners of a piece at most: physics engines look at all of them at each contact.
_CORNERS = 48


def convex_pieces(mesh: Any, concavity: float, most: int) -> tuple[Floats, ...]:
    """Corners ``[N, 3]`` of the pieces of a convex decomposition, m; one piece for what is convex already.

    Args:
        mesh: a closed ``trimesh.Trimesh``.
        concavity: how much of a solid's depth a piece may fill; smaller follows more closely and takes more pieces.
        most: pieces of a connected body at most.

    Raises:
        InvalidConfigError: where CoACD, which does it, is not installed.
    """
    bodies = mesh.split()
    if len(bodies) > 1 and min(body.volume for body in bodies) > 0:
        # One by one: solids that overlap would be melted into one first, which takes long. A hole inside is no body.
        return tuple(points for body in bodies for points in convex_pieces(body, concavity, most))
    if mesh.convex_hull.volume < (1 + _CONVEX) * mesh.volume:
        return (np.asarray(mesh.convex_hull.vertices, np.float64),)
    from scipy.spatial import ConvexHull  # noqa: PLC0415

    coacd = import_extra("coacd", "A mesh that is not convex is cut into convex pieces by CoACD", "meshes")
    coacd.set_log_level("error")
    found = coacd.run_coacd(
        coacd.Mesh(mesh.vertices, mesh.faces),
        threshold=concavity,
        max_convex_hull=most,
        max_ch_vertex=_CORNERS,
        decimate=True,
        seed=0,
    )
    hulls = ((vertices, ConvexHull(vertices)) for vertices, _ in found)
    return tuple(
        np.asarray(vertices[hull.vertices], np.float64)
        for vertices, hull in hulls
        if hull.volume > _SLIVER * mesh.volume
    )
