"""Protocols made of perturbed arms: for the WidowX what SimplerEnv's variant aggregation is for the Google Robot.

The original has variants of the Google Robot's scenes alone. Its groups, in the order of its table: base, backgrounds,
lighting, distractors, table textures, and apart from the average camera poses; each group's variants weigh alike. Here
every group is made of perturbations of the same name, so that the aggregation is run on the benchmark's own layouts and
each of its episodes has its unperturbed twin.
"""

from __future__ import annotations

from dataclasses import dataclass

from vlaser_gym.envs.perturbations import Perturbation, get_perturbation
from vlaser_gym.envs.tasks import PRESETS
from vlaser_gym.errors import UnknownNameError

#: The arm without a perturbation.
BASE = "base"


@dataclass(frozen=True)
class PerturbedProtocol:
    """An evaluation whose score is a mean over perturbed arms.

    Attributes:
        name: for ``protocol=NAME``.
        tasks: what is run.
        groups: name of a group -> labels of its perturbations; :data:`BASE` is the group without any.
        apart: groups that are run and enter no average.
    """

    name: str
    tasks: tuple[str, ...]
    groups: dict[str, tuple[str, ...]]
    apart: tuple[str, ...] = ()

    @property
    def labels(self) -> tuple[str, ...]:
        """All perturbations, group after group."""
        return tuple(label for of in self.groups.values() for label in of)

    @property
    def perturbations(self) -> list[Perturbation]:
        """The same as objects."""
        return [get_perturbation(label) for label in self.labels]


#: WidowX: 24 layouts of each of four tasks, as they are and with each perturbation.
WIDOWX_VARIANT_AGGREGATION = PerturbedProtocol(
    "widowx_variant_aggregation",
    PRESETS["widowx"],
    {
        BASE: (),
        "backgrounds": ("background:medium", "background:hard"),
        "lighting": ("light_direction:medium", "light_colour:medium"),
        "distractors": ("distractors:mild", "distractors:hard"),
        "table textures": ("table_texture:medium", "table_texture:hard"),
        "cameras": ("camera_pose:mild", "camera_pose:medium"),
    },
    apart=("cameras",),
)
PERTURBED_PROTOCOLS = {protocol.name: protocol for protocol in (WIDOWX_VARIANT_AGGREGATION,)}


def get_perturbed_protocol(name: str) -> PerturbedProtocol:
    """The protocol of that name.

    Raises:
        UnknownNameError: if there is none.
    """
    if name not in PERTURBED_PROTOCOLS:
        raise UnknownNameError("protocol", name, PERTURBED_PROTOCOLS)
    return PERTURBED_PROTOCOLS[name]
