"""ManiSkill's own bridge environments, to be compared with ours: not an engine, only a player of recordings.

They are ports of SimplerEnv's four WidowX tasks with materials, solver, controller and success rules of their own.
ManiSkill finds their files by an environment variable that it reads when it is imported, so they run in a process of
their own, which is told about a temporary folder of links into the asset pack.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlaser_gym.envs.assets import AssetPack
from vlaser_gym.envs.engines.maniskill.engine import installed_version, start_worker

Floats = NDArray[np.float64]

#: Module of the process in which the environments run.
WORKER = "vlaser_gym.envs.engines.maniskill.bridge_worker"
#: ManiSkill's names of our tasks.
ENVIRONMENTS = {
    "widowx_carrot_on_plate": "PutCarrotOnPlateInScene-v1",
    "widowx_spoon_on_towel": "PutSpoonOnTableClothInScene-v1",
    "widowx_stack_cube": "StackGreenCubeOnYellowCubeBakedTexInScene-v1",
    "widowx_put_eggplant_in_basket": "PutEggplantInBasketScene-v1",
}
#: Which of ManiSkill's eight resting poses of the eggplant follows from the original's yaw 0, 45 and -45 degrees.
_EGGPLANT_POSES = (1, 2, 0)


class Begin(NamedTuple):
    """The initial state of ManiSkill's environment.

    Attributes:
        episode: its ``episode_id``.
        object_pose: world poses ``[7]`` by name at which objects begin; None: where its own reset leaves them, which
            places them and lets them settle.
    """

    episode: int
    object_pose: Mapping[str, Floats] | None = None


class Course(NamedTuple):
    """The recorded course of an episode; row 0 is the state before the first action.

    Attributes:
        qpos: ``[T + 1, 8]``, order of ``Robot.moving_joints``.
        tcp: ``[T + 1, 7]``, base frame.
        object_pose: ``[T + 1, 7]`` of each object by name, world.
        base_pose: ``[7]`` of the robot's root, world.
        success: ``[T]``, by ManiSkill's rule.
    """

    qpos: Floats
    tcp: Floats
    object_pose: dict[str, Floats]
    base_pose: Floats
    success: NDArray[np.bool_]


class BridgeEnvironments:
    """Plays open-loop actions in ManiSkill's own bridge environments, on the processor.

    Args:
        assets: directory of the asset pack; None for the one that ``python -m vlaser_gym.assets`` fills.

    Raises:
        MissingAssetError: if there is no asset pack.
        InvalidConfigError: if the extra ``maniskill`` is not installed.
    """

    def __init__(self, assets: str | None = None) -> None:
        installed_version()
        pack = AssetPack(assets).directory.resolve()
        self._folder = tempfile.TemporaryDirectory(prefix="maniskill-")
        self._child = start_worker(WORKER, MS_ASSET_DIR=self._folder.name)
        self._child.ask("open", pack)

    def play(self, task: str, begin: Begin, actions: NDArray[Any]) -> Course:
        """Begin anew and act.

        Args:
            task: a key of :data:`ENVIRONMENTS`.
            begin: where.
            actions: ``[T, 7]`` as our environment takes them.

        Raises:
            RenderingUnavailableError: if there is no Vulkan driver, without which these environments cannot be made.
        """
        course = self._child.ask("play", ENVIRONMENTS[task], begin, np.asarray(actions, np.float32))
        assert isinstance(course, Course)
        return course

    def __enter__(self) -> BridgeEnvironments:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._child.close()
        self._folder.cleanup()


def own_episode(task: str, layout: int) -> int:
    """ManiSkill's ``episode_id`` of the original's layout. The eggplant has eight poses there, and three here."""
    if task != "widowx_put_eggplant_in_basket":
        return layout
    place, yaw = divmod(layout, len(_EGGPLANT_POSES))
    return 8 * place + _EGGPLANT_POSES[yaw]


def link_files(pack: Path, data: Path) -> None:
    """Lay out the asset pack's files in ``data`` as ManiSkill's tasks and robot look for them; links, no copies."""
    custom, robot = data / "tasks/bridge_v2_real2sim_dataset", data / "robots/widowx"
    description = pack / "mani_skill2_real2sim/assets/descriptions/widowx_description"
    for folder in (custom, robot):
        folder.mkdir(parents=True)
    for name in ("custom", "real_inpainting"):
        (custom / name).symlink_to(pack / "data" / name)
    for path in description.iterdir():
        (robot / path.name).symlink_to(path)
