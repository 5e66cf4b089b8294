"""Diagnosis of this machine: ``python -m vlaser_gym.doctor``; ``--help`` lists the keys."""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image
from rich.text import Text

from vlaser_gym import __version__
from vlaser_gym.cli import run, typed
from vlaser_gym.commands.agent_findings import examine_agent
from vlaser_gym.commands.finding import Finding
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.assets import MANIFEST, default_directory
from vlaser_gym.envs.assets.pack import examine as check_assets
from vlaser_gym.envs.engines import engine_names
from vlaser_gym.envs.engines.maniskill.engine import probe
from vlaser_gym.envs.engines.simpler.engine import SimplerEngine
from vlaser_gym.envs.engines.simpler.settings import asked_settings, differing_settings, other_versions
from vlaser_gym.envs.tasks import by_robot, get_task, task_names
from vlaser_gym.envs.tasks.protocols import get_protocol
from vlaser_gym.envs.vector import SceneVectorEnv
from vlaser_gym.errors import GymError, RenderingUnavailableError, StorageError
from vlaser_gym.evaluation.certificate import RecordedEpisode, play, recorded_episodes
from vlaser_gym.evaluation.table import make_console
from vlaser_gym.settings.commands import DoctorSettings

_REINSTALL = "Install vlaser-gym again with its constraints.txt, in a fresh virtual environment."
_EGL = (
    "Install Mesa's EGL (Debian, Ubuntu: apt-get install libegl1 libgl1-mesa-dri) and leave MUJOCO_GL unset. Until "
    "then agents that read no images can be scored with video=0."
)
#: Module of each optional part, what it is for, and how to get it.
_OPTIONAL = (
    ("mani_skill", "ManiSkill 3", "the engine maniskill", "pip install 'vlaser-gym[maniskill]'"),
    ("ray", "Ray", "evaluation on several machines", "pip install 'vlaser-gym[ray]'"),
)
_SEE = "See docs/simpler.md."
_STYLES = {"works": "green", "missing": "red", "optional": "yellow"}


def main(config: DictConfig) -> None:
    """Examine, print, exit with the verdict."""
    settings = typed(DoctorSettings, config)
    console = make_console()
    well = True
    for finding in chain(examine(settings.output, settings.simpler), examine_agent(settings.agent, settings.robot)):
        state = "works" if finding.works else "missing" if finding.needed else "optional"
        line = Text(f"{state:9s}", style=_STYLES[state])
        line.append(f"{finding.name}: ", style="bold").append(finding.text, style="default")
        console.print(line, soft_wrap=True)
        if not finding.works and finding.remedy:
            console.print(Text(f"{'':9s}-> {finding.remedy}"), soft_wrap=True)
        well &= finding.works or not finding.needed
    verdict = "The default evaluation works here: python -m vlaser_gym.eval" if well else "Something needed is missing."
    console.print(Text(f"\n{verdict}", style="bold"), soft_wrap=True)
    sys.exit(0 if well else 1)


def examine(output: str | None = None, simpler: str | None = None) -> Iterator[Finding]:
    """All findings, in the order of the report; ``output`` takes the test image, ``simpler`` is an interpreter."""
    yield _python()
    yield _guarded("torch", _torch)
    yield _guarded("physics", _physics)
    yield _pictures(output)
    yield _guarded("videos", _videos)
    yield Finding("tasks", bool(task_names()), ", ".join(task_names()), _REINSTALL)
    yield Finding("engines", True, f"{', '.join(engine_names())} (the look builtin needs no files)")
    yield _assets()
    for module, title, purpose, command in _OPTIONAL:
        yield _optional(module, title, purpose, command)
    if find_spec("mani_skill") is not None:
        yield _sapien_pictures()
    yield from examine_simpler(simpler)


def examine_simpler(python: str | None) -> Iterator[Finding]:
    """Check that an interpreter holds the original simulator as it was recorded.

    Its versions are those of the recordings; an episode of every scene family begins as it should, under the settings
    that were asked for, and with an image; and recorded episodes that are played again go as they went. Images are
    made with the rasteriser: the ray tracer of scenes with a cabinet takes minutes without a GPU.
    """
    if python is None:
        remedy = "If you have installed it: python -m vlaser_gym.doctor simpler=ITS_PYTHON (docs/simpler.md)"
        yield Finding("SimplerEnv", False, "not checked; only for the engine simpler", remedy, needed=False)
        return
    recorded, families = recorded_episodes(), _scene_families()
    names = dict.fromkeys((*families, *(episode.task for episode in recorded)))
    for robot, tasks in enumerate(by_robot(map(get_task, names)).values()):
        chosen = [task.name for task in tasks]
        try:
            env = SceneVectorEnv(chosen, observe=("image",), engine="simpler", engine_options=_simpler(python))
        except GymError as error:
            yield Finding("SimplerEnv", False, str(error), _SEE)
            return
        with closing(env):
            if not robot:
                yield _versions(env)
            for name in (name for name in chosen if name in families):
                yield from _family(env, families[name])
            for episode in (episode for episode in recorded if episode.task in chosen):
                yield _played(env, episode)


def _simpler(python: str) -> dict[str, Any]:
    return {"python": python, "env_kwargs": {"shader_dir": "ibl"}}


def _scene_families() -> dict[str, Address]:
    """A published episode of every kind of task before every scenery, by its task."""
    families: dict[object, Address] = {}
    for address in get_protocol("visual_matching").episodes:
        task = get_task(address.task)
        families.setdefault((type(task), task.robot_setup, task.scenery), address)
    return {address.task: address for address in families.values()}


def _versions(env: SceneVectorEnv) -> Finding:
    """Versions of the original, beside those that were recorded."""
    name = "SimplerEnv's versions"
    others = other_versions(cast(SimplerEngine, env.engine).versions)
    if others:
        text = f"{'; '.join(others)}: its recordings say nothing of these"
        return Finding(name, False, text, f"Install those that are meant. {_SEE}")
    return Finding(name, True, env.engine.version)


def _family(env: SceneVectorEnv, address: Address) -> Iterator[Finding]:
    """An episode of SimplerEnv: its beginning, its image, its settings."""
    name = f"SimplerEnv, {address.task}"
    chosen = {"task": address.task, "variant": address.variant, "layout": address.layout}
    try:
        observation, _ = env.reset(options=chosen)
    except GymError as error:
        yield Finding(name, False, str(error), _SEE)
        return
    _, height, width, _ = observation["image"].shape
    task, told = get_task(address.task), cast(SimplerEngine, env.engine).told[address.task]
    layout = task.layout(address.layout, address.variant)
    asked = asked_settings(task, address.variant, layout, _simpler(""))
    if wrong := differing_settings(told, asked):
        yield Finding(name, False, f"it says of itself: {'; '.join(wrong)}", _SEE)
        return
    same = len(asked.keys() & told.keys())
    yield Finding(name, True, f"begins as the original does; {width} x {height} pixels; {same} settings as asked for")


def _played(env: SceneVectorEnv, episode: RecordedEpisode) -> Finding:
    """A recorded episode of SimplerEnv, once more."""
    name = f"SimplerEnv, recorded {episode}"
    try:
        departure = play(env, episode)
    except GymError as error:
        return Finding(name, False, str(error), _SEE)
    if departure.phrases:
        return Finding(name, False, "; ".join(departure.phrases), _SEE)
    within = f"TCP within {1000 * departure.tcp:.2g} mm, thing within {1000 * departure.thing:.2g} mm"
    return Finding(name, True, f"goes and ends as it did ({within})")


def _guarded(name: str, check: Callable[[], str]) -> Finding:
    """A check that describes what it found, or fails in whatever way."""
    try:
        return Finding(name, True, check())
    except Exception as error:  # a broken installation breaks in many ways
        return Finding(name, False, _one_line(error), _REINSTALL)


def _one_line(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"


def _python() -> Finding:
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    text = f"{platform.python_version()}, vlaser-gym {__version__}, {cores} cores, {platform.system()}"
    return Finding("Python", sys.version_info >= (3, 11), text, "Install Python 3.11 or later.")


def _torch() -> str:
    import torch  # noqa: PLC0415  (a missing torch is a finding)

    if torch.cuda.is_available():
        return f"{torch.__version__}, device cuda ({torch.cuda.get_device_name()})"
    return f"{torch.__version__}, device cpu with {torch.get_num_threads()} threads (no GPU is needed)"


def _physics() -> str:
    """Check of one control step of the first task."""
    env = SceneVectorEnv(task_names()[0], observe=("proprio",))
    try:
        env.reset(options={"layout": 0})
        observation, *_ = env.step(np.zeros((1, 7)))
        assert np.isfinite(observation["proprio"]).all()
        return f"MuJoCo {env.engine.version} simulates {task_names()[0]}"
    finally:
        env.close()


def _pictures(output: str | None) -> Finding:
    """An image of the first task, made as an evaluation makes it."""
    backend = f"MUJOCO_GL is {os.environ.get('MUJOCO_GL') or 'unset, so EGL where there is no display'}"
    try:
        picture, seconds = _probe()
    except RenderingUnavailableError as error:
        return Finding("images", False, f"{backend}. {str(error).partition('. ')[0]}.", _EGL)
    except Exception as error:  # a broken installation breaks in many ways
        return Finding("images", False, f"{backend}. {_one_line(error)}", _REINSTALL)
    if output is not None:
        _save(picture, output)
    height, width, _ = picture.shape
    text = f"{backend}; {width} x {height} pixels in {1000 * seconds:.0f} ms"
    colours = len(np.unique(picture[::4, ::4].reshape(-1, 3), axis=0))
    if colours < 50:
        return Finding("images", False, f"{text}, but the image is blank ({colours} colours)", _EGL)
    return Finding("images", True, text + (f", written to {output}" if output is not None else ""))


def _probe() -> tuple[NDArray[np.uint8], float]:
    """An image ``[H, W, 3]`` and how long the second one took (s); the first one starts a process."""
    env = SceneVectorEnv(task_names()[0], observe=("image",), engine_options={"render_processes": 1})
    try:
        env.reset(options={"layout": 0})
        begun = time.perf_counter()
        observation, _ = env.reset(options={"layout": 1})
        return observation["image"][0], time.perf_counter() - begun
    finally:
        env.close()


def _sapien_pictures() -> Finding:
    """Check that SAPIEN finds a Vulkan driver."""
    try:
        text = f"drawn by {probe()}, for the engine maniskill"
        return Finding("SAPIEN images", True, text, needed=False)
    except GymError as error:
        found, _, advice = str(error).partition("). ")
        return Finding("SAPIEN images", False, f"{found}).", advice or _REINSTALL, needed=False)


def _save(picture: NDArray[np.uint8], output: str) -> None:
    try:
        Path(output).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(output)
    except (OSError, ValueError) as error:
        raise StorageError(f"Cannot write the image to output={output} ({error}); choose another PNG file.") from error


def _videos() -> str:
    import imageio_ffmpeg  # noqa: PLC0415  (a missing encoder is a finding)

    imageio_ffmpeg.get_ffmpeg_exe()
    return f"ffmpeg {imageio_ffmpeg.get_ffmpeg_version()}"


def _assets() -> Finding:
    """The state of the original's assets in the user's cache."""
    directory, count = default_directory(), len(MANIFEST.files)
    if not directory.is_dir():
        text = "not fetched; only for look=original and for engines that show the original's scenes"
        return Finding("asset pack", False, text, "python -m vlaser_gym.assets fetch", needed=False)
    status = check_assets(directory)
    if status.complete:
        return Finding("asset pack", True, f"{count} files in {directory}, for look=original", needed=False)
    absent = len(status.missing) + len(status.damaged)
    first = next(iter((*status.damaged, *status.missing)))
    text = f"{absent} of {count} files in {directory} are missing or damaged, first {first}"
    return Finding("asset pack", False, text, "python -m vlaser_gym.assets fetch", needed=False)


def _optional(module: str, title: str, purpose: str, command: str) -> Finding:
    if find_spec(module) is None:
        return Finding(title, False, f"not installed; only for {purpose}", command, needed=False)
    try:
        return Finding(title, True, f"{version(module.replace('_', '-'))}, for {purpose}", needed=False)
    except PackageNotFoundError:
        return Finding(title, True, f"importable, for {purpose}", needed=False)


def command() -> None:
    """``python -m vlaser_gym.doctor``."""
    run("doctor", main)
