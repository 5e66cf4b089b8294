"""The child's end: simulates its environments, one after another or all at once on a GPU, and draws states when asked
to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.base import Reading
from vlaser_gym.envs.engines.child import serve
from vlaser_gym.envs.engines.maniskill.physics import Simulation
from vlaser_gym.envs.engines.maniskill.pictures import Artist, Picture
from vlaser_gym.envs.engines.maniskill.start import SceneKey, Start, Targets
from vlaser_gym.envs.engines.maniskill.vulkan import render_system

#: Most drawn scenes that are kept; each holds meshes and textures.
_KEPT_SCENES = 8


class _Lanes(Protocol):
    def run(self, jobs: Sequence[tuple[int, Start, Sequence[Targets]]]) -> list[Reading]:
        """Begin episodes, and repeat the control steps that they have behind them."""

    def step(self, jobs: Sequence[tuple[int, Targets]]) -> list[Reading]:
        """One control step of each environment named."""


class _OneByOne:
    """A CPU simulation for each environment."""

    def __init__(self, pack: AssetPack) -> None:
        self._pack = pack
        self._lanes: dict[int, Simulation] = {}

    def run(self, jobs: Sequence[tuple[int, Start, Sequence[Targets]]]) -> list[Reading]:
        """See :class:`_Lanes`; every simulation is built anew."""
        for lane, start, history in jobs:
            self._lanes.pop(lane, None)
            self._lanes[lane] = Simulation(start, self._pack)
            for targets in history:
                self._lanes[lane].step(targets)
        return [self._lanes[lane].read() for lane, _, _ in jobs]

    def step(self, jobs: Sequence[tuple[int, Targets]]) -> list[Reading]:
        """See :class:`_Lanes`."""
        for lane, targets in jobs:
            self._lanes[lane].step(targets)
        return [self._lanes[lane].read() for lane, _ in jobs]


class _Worker:
    def __init__(self) -> None:
        self._pack: AssetPack
        self._lanes: _Lanes
        self._artists: dict[SceneKey, Artist] = {}

    def answer(self, command: str, *arguments: Any) -> Any:
        """The answer to one message of the parent, which raises again what is raised here."""
        handlers: dict[str, Callable[..., Any]] = {
            "open": self._open,
            "probe": lambda: str(render_system().device.name),
            "run": self._run,
            "step": self._step,
            "draw": self._draw,
            "show": self._show,
        }
        return handlers[command](*arguments)

    def _open(self, directory: str, sim_backend: str = "cpu") -> None:
        self._pack = AssetPack(directory)
        self._lanes = _together(self._pack) if sim_backend == "gpu" else _OneByOne(self._pack)

    def _run(self, jobs: Sequence[tuple[int, Start, Sequence[Targets]]]) -> list[Reading]:
        return self._lanes.run(jobs)

    def _step(self, jobs: Sequence[tuple[int, Targets]]) -> list[Reading]:
        return self._lanes.step(jobs)

    def _draw(self, jobs: Sequence[tuple[int, Start]]) -> list[Picture]:
        return [self._artist(state.key).draw(state) for _, state in jobs]

    def _show(self, state: Start) -> tuple[Picture, NDArray[np.bool_]]:
        """The image of a state, and where it shows the foreground."""
        artist = self._artist(state.key)
        return artist.draw(state), artist.layers(state)[1]

    def _artist(self, key: SceneKey) -> Artist:
        if key not in self._artists:
            while len(self._artists) >= _KEPT_SCENES:
                self._artists.pop(next(iter(self._artists)))
            self._artists[key] = Artist(key, self._pack)
        self._artists[key] = artist = self._artists.pop(key)
        return artist


def _together(pack: AssetPack) -> _Lanes:
    from vlaser_gym.envs.engines.maniskill.batch import Batches  # noqa: PLC0415
    from vlaser_gym.envs.engines.maniskill.cuda import CudaSystem, enable  # noqa: PLC0415  (needs PhysX for CUDA)

    enable()
    return Batches(pack, CudaSystem)


if __name__ == "__main__":
    serve(_Worker().answer)
