"""Draws the images of docs/robustness.md: what each perturbation does, level by level.

    python examples/draw_perturbations.py docs

Vision is drawn as the policy sees it, one episode of carrot on plate; execution as what the scripted expert's episodes
become. Takes about a minute on a core.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

import vlaser_gym
from vlaser_gym.agents import make_agent
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.engines import Placement
from vlaser_gym.envs.perturbations import LEVELS, PERTURBATIONS, get_perturbation
from vlaser_gym.envs.rendering import SceneRenderer
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.robots.kinematics import KinematicTree
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.evaluator import EvalSettings, make_scene_env
from vlaser_gym.evaluation.runner import Runner

CARROT, CUBE = "widowx_carrot_on_plate", "widowx_stack_cube"
SHOWN = Address(CARROT, layout="grid:6")


def names_of(family: str) -> list[str]:
    """The perturbations of a family."""
    return [kind.name for kind in PERTURBATIONS.values() if kind.family == family]


def seen(renderer: SceneRenderer, label: str | None) -> np.ndarray:
    """The first image of the shown episode."""
    task = get_task(CARROT)
    layout, start = task.layout(SHOWN.layout), np.array(get_setup(task.robot_setup).qpos)
    poses = {f"object/{body.name}": pose for body, pose in zip(task.objects, layout.object_pose, strict=True)}
    state = {"qpos": start, **poses}
    if label is None:
        return np.asarray(renderer.frame(CARROT, "default", state))
    perturbation = get_perturbation(label)
    moment = perturbation.moment(SHOWN)
    sight = perturbation.place(Placement(task, "default", layout, start), moment).sight
    return perturbation.picture(renderer.frames(CARROT, "default", [state], sight=sight)[0], moment)


def draw_vision(file: Path) -> None:
    """A row per perturbation: without, mild, medium, hard."""
    names = [*names_of("vision"), "blank_image"]
    figure, axes = plt.subplots(len(names), 4, figsize=(11, 2.1 * len(names)), layout="constrained")
    renderer = SceneRenderer(processes=1)
    for row, name in zip(axes, names, strict=True):
        levels = LEVELS if len(PERTURBATIONS[name].strengths) > 1 else LEVELS[:1]
        labels = [None, *(f"{name}:{level}" for level in levels)]
        for cell in row:
            cell.set(xticks=[], yticks=[], frame_on=False)
        for cell, label in zip(row, labels, strict=False):
            cell.imshow(seen(renderer, label))
        row[0].set_ylabel(name, fontsize=10)
    renderer.close()
    for cell, title in zip(axes[0], ("none", *LEVELS), strict=True):
        cell.set_title(title, fontsize=10)
    figure.savefig(file, dpi=70)


def draw_words(file: Path) -> None:
    """What is told in place of an instruction."""
    names = [*names_of("semantics"), "no_instruction", "wrong_instruction"]
    rows = []
    for name in names:
        for level in LEVELS[: len(PERTURBATIONS[name].strengths)]:
            perturbation = get_perturbation(f"{name}:{level}")
            told = perturbation.instruction("put carrot on plate", perturbation.moment(SHOWN))
            rows.append((perturbation.label, f"“{told}”"))
    figure, axes = plt.subplots(figsize=(11, 0.36 * len(rows) + 0.4), layout="constrained")
    axes.set(xlim=(0, 1), ylim=(len(rows), -1), xticks=[], yticks=[], frame_on=False)
    for i, (label, told) in enumerate([("none", "“put carrot on plate”"), *rows], -1):
        axes.text(0.0, i + 0.5, label, fontsize=9, color="#626b74", family="monospace", va="center")
        short = told if len(told) < 118 else f"{told[:114]} ...”"
        axes.text(0.2, i + 0.5, short, fontsize=9, va="center")
    figure.savefig(file, dpi=90)


def episode(label: str | None, task: str = CUBE, layout: str = "grid:6") -> dict[str, Any]:
    """The states of an expert's episode."""
    settings = EvalSettings(task=task, perturb=label, agent={"name": "expert"})
    agent = make_agent("expert")
    env = make_scene_env(settings, [task], 1, agent.observes)
    (result,) = Runner(env, agent, [Address(task, layout=layout)])
    env.close()
    return result.trajectory


def tcp_path(states: dict[str, Any]) -> np.ndarray:
    """Positions of the tool ``[T + 1, 3]``, m."""
    robot = get_setup(get_task(CUBE).robot_setup).robot
    _, position = KinematicTree(robot).link_poses(states["qpos"], [robot.tcp_link])[robot.tcp_link]
    return np.asarray(position)


def draw_execution(file: Path) -> None:
    """What becomes of the expert's episode: the way of its tool, or of the object."""
    names = names_of("execution")
    figure, axes = plt.subplots(2, 4, figsize=(13, 6), layout="constrained")
    plain = episode(None)
    colours = {"none": "#1d2126", "mild": "#8ea8ff", "medium": "#3457c4", "hard": "#b8560f"}
    for cell, name in zip(axes.flat, names, strict=False):
        cell.set_title(name, fontsize=10)
        if name == "proprio_noise":
            draw_proprio(cell, colours)
            continue
        for level in ("none", *LEVELS):
            states = plain if level == "none" else episode(f"{name}:{level}")
            if name in ("friction", "mass", "object_moved"):
                way, what = states["object/baked_green_cube_3cm"][:, :3], "cube"
            else:
                way, what = tcp_path(states), "tool"
            cell.plot(100 * np.linalg.norm(way - way[-1] if what == "cube" else way - way[0], axis=1), color=colours[level])
        cell.set(xlabel="control step", ylabel=f"{what} from where it {'ends' if what == 'cube' else 'began'}, cm")
    for cell in axes.flat[len(names) :]:
        cell.set_axis_off()
        cell.legend([plt.Line2D([], [], color=c) for c in colours.values()], colours, loc="center", frameon=False)
    figure.savefig(file, dpi=80)


def draw_proprio(cell: Any, colours: dict[str, str]) -> None:
    """What is read of a tool that stands still."""
    true = np.array([0.3, 0, 0.2, 1, 0, 0, 0, 1.0])
    for level in reversed(LEVELS):
        noise = get_perturbation(f"proprio_noise:{level}")
        read = np.array([noise.proprio(true, noise.moment(SHOWN, step)) for step in range(200)])
        cell.plot(*(1000 * (read[:, :2] - true[:2])).T, ".", color=colours[level], markersize=3)
    cell.plot(0, 0, "+", color=colours["none"], markersize=10)
    cell.set(xlabel="read x, mm", ylabel="read y, mm", aspect="equal")


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(TemporaryDirectory().name)
    folder.mkdir(exist_ok=True, parents=True)
    draw_words(folder / "perturbed_words.png")
    draw_execution(folder / "perturbed_motion.png")
    draw_vision(folder / "perturbed_pictures.jpg")
    print(f"{vlaser_gym.__name__}: three images in {folder}")
