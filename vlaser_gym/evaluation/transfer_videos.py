"""Videos of an episode on two sides, beside each other."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.rendering import SceneRenderer, drawn_states, shown_look
from vlaser_gym.envs.robots import get_setup
from vlaser_gym.envs.tasks import get_task
from vlaser_gym.evaluation.transfer import Key, policy_name
from vlaser_gym.evaluation.video import draw_caption, write_video

#: By name, row 0 the initial state; see :class:`~vlaser_gym.evaluation.runner.EpisodeResult`.
States = Mapping[str, NDArray[Any]]


class Side(NamedTuple):
    """An episode as one side played it.

    Attributes:
        name: of the side.
        look: in which to show it.
        states: of the episode.
        success: at the last step.
    """

    name: str
    look: str
    states: States
    success: bool


def recorded_states(golden: Path, wanted: Key) -> States:
    """The states of the original's recorded episode; empty where there is none.

    Args:
        golden: folder of the recordings, with ``ranking`` and ``ranking_google``.
        wanted: belief (m) and address.
    """
    belief, address = wanted
    for folder in ("ranking", "ranking_google"):
        index = golden / folder / "index.json"
        for name, row in json.loads(index.read_text()).items() if index.is_file() else ():
            if (row["belief_sigma_m"], row["task"], row["layout"]) == (belief, address.task, address.layout):
                return _named(np.load(golden / folder / f"{name}.npz"), address)
    return {}


def _named(arrays: Mapping[str, NDArray[Any]], address: Address) -> States:
    """The original's arrays under our names, with the base pose of the layout, which does not move."""
    task = get_task(address.task)
    layout = task.layout(address.layout, address.variant)
    named = {name.replace("object.", "object/").replace("joint.", "joint/"): arrays[name] for name in arrays}
    base = np.array(layout.base_pose or get_setup(task.robot_setup).base_pose)
    return {**named, "base_pose": np.tile(base, (len(named["qpos"]), 1))}


class BesideVideos:
    """Makes the videos; use as a context manager.

    Args:
        folder: where they go.
        assets: directory of the asset pack, for the look ``original``; ``None`` for the user's cache.
    """

    def __init__(self, folder: Path, assets: str | None = None) -> None:
        self.folder, self._assets = folder, assets
        self._renderers: dict[str, SceneRenderer] = {}

    def __enter__(self) -> BesideVideos:
        return self

    def __exit__(self, *exception: object) -> None:
        for renderer in self._renderers.values():
            renderer.close()

    def write(self, key: Key, sides: tuple[Side, Side]) -> Path:
        """The video of an episode, both sides beside each other; the shorter one stands still at its end.

        Raises:
            StorageError: if it cannot be written.
            RenderingUnavailableError: if no images can be made here.
        """
        policy, address = policy_name(key[0]), key[1]
        words = [Path(policy).name, address.task, address.layout.replace(":", "-"), f"trial-{address.trial}"]
        file = self.folder / f"{'.'.join(words).replace(' ', '')}.mp4"
        hz = get_setup(get_task(address.task).robot_setup).control_hz
        return write_video(file, self._frames(policy, address, sides), hz)

    def _frames(self, policy: str, address: Address, sides: tuple[Side, Side]) -> Iterator[NDArray[np.uint8]]:
        task = get_task(address.task)
        ends = [f"{side.name}: {'success' if side.success else 'failure'}" for side in sides]
        count = max(len(side.states["qpos"]) for side in sides)
        for step, pictures in enumerate(zip(*(self._pictures(address, side, count) for side in sides), strict=True)):
            caption = {
                "instruction": task.instruction(address.layout, address.variant, 0),
                "where": "   ".join([address.task, address.layout, policy, "left " + ends[0], "right " + ends[1]]),
                "step": f"step {step}/{task.max_steps}",
                "flags": {},
                "note": "",
            }
            yield draw_caption(np.hstack(pictures), caption)

    def _pictures(self, address: Address, side: Side, count: int) -> Iterator[NDArray[np.uint8]]:
        """``count`` images of a side."""
        look = shown_look(side.look, self._assets)
        if look not in self._renderers:
            self._renderers[look] = SceneRenderer(look, assets=self._assets)
        named = drawn_states(side.states)
        last = len(named["qpos"]) - 1
        for step in range(count):
            state = {name: values[min(step, last)] for name, values in named.items()}
            yield self._renderers[look].frame(address.task, address.variant, state)
