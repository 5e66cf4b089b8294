"""An object of one's own, from a mesh to episodes: a mug is generated, made into an object, and put onto the plate.

``python examples/own_object.py FOLDER`` leaves in a folder what the tutorial docs/tutorial_own_object.md speaks of: the
mesh, the object, the file of the task, and the run directory of the scripted expert.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import trimesh

import vlaser_gym
from vlaser_gym.envs.modelling.making import Recipe, describe, make_object

TASK = """\
instruction: [put the mug on the plate, place the cup onto the plate]
source: objects/mug
target: plate
relation: onto
region:
  source: {x: [-0.23, -0.13], y: [-0.1, 0.0]}
  target: {x: [-0.19, -0.11], y: [0.04, 0.1]}
"""


def mug_mesh() -> trimesh.Trimesh:
    """A mug of 42 mm width and 50 mm height with a handle, in millimetres, as a modelling program would export it."""
    profile = [(0, 0), (21, 0), (21, 50), (18, 50), (18, 4), (0, 4)]
    cup = trimesh.creation.revolve(np.array(profile, float), sections=48)
    # The handle is made of bars that overlap; the first and the last one begin inside of the wall.
    angle = np.linspace(-np.pi / 2, np.pi / 2, 13)
    path = np.column_stack([20.5 + 14 * np.cos(angle), np.zeros(13), 25 + 13 * np.sin(angle)])
    ends = [(a - 0.2 * (b - a), b) for a, b in zip(path, path[1:], strict=False)]
    bars = [trimesh.creation.cylinder(3, segment=segment, sections=12) for segment in ends]
    return trimesh.util.concatenate([cup, *bars])


def main(folder: Path, episodes: int = 12, recipe: Recipe = Recipe(unit="mm", colour=(0.75, 0.25, 0.2))) -> float:
    """Make mesh, object and task in a folder and let the expert do it; the share of successful episodes."""
    folder.mkdir(parents=True, exist_ok=True)
    mug_mesh().export(folder / "mug.stl")
    made = make_object(folder / "mug.stl", folder / "objects" / "mug", recipe)
    print("\n".join(describe(made)))
    task = folder / "mug_on_plate.yaml"
    task.write_text(TASK)
    scored = vlaser_gym.evaluate(
        "expert", task=str(task), episodes=episodes, layouts="region", run=folder / "run", video=0
    )
    print(scored)
    return scored.rates["mug_on_plate"].rate


if __name__ == "__main__":
    main(Path(sys.argv[1]))
