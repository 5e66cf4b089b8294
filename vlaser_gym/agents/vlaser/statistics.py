"""Statistics of the data sets that Vlaser's robots were trained on, and the bound normalisation made from them.

The numbers are those that the public repositories OpenGVLab/Vlaser and allenzren/open-pi-zero ship for Bridge V2
(WidowX) and fractal20220817_data (Google Robot). A checkpoint folder keeps its own in ``statistics.json``, in their
layout.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.storage.files import write_whole

Array = NDArray[np.float64]

#: Name of the file inside a checkpoint folder.
FILE_NAME = "statistics.json"
#: Keeps the normalisation of a constant column finite; a convention of the original training code.
EPSILON = 1e-8


@dataclass(frozen=True)
class Moments:
    """Moments and percentiles of a vector, one entry per dimension (m, rad, gripper 0..1)."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    max: tuple[float, ...]
    min: tuple[float, ...]
    p99: tuple[float, ...]
    p01: tuple[float, ...]

    @property
    def size(self) -> int:
        """Number of dimensions."""
        return len(self.p01)

    def normalize(self, values: ArrayLike) -> Array:
        """``[..., D]`` -> ``[..., D]``: p01 becomes -1 and p99 becomes 1; values outside are clipped to them."""
        low, high = np.array(self.p01), np.array(self.p99)
        scaled = 2 * (np.asarray(values, np.float64) - low) / (high - low + EPSILON) - 1
        return np.asarray(np.clip(scaled, -1.0, 1.0))

    def clipped(self, values: ArrayLike) -> Array:
        """Share of ``[N, D]`` that :meth:`normalize` clips, per dimension ``[D]``, 0 to 1."""
        array = np.asarray(values, np.float64)
        outside = (array < np.array(self.p01) - EPSILON) | (array > np.array(self.p99) + EPSILON)
        return np.asarray(outside.mean(0))

    def widened(self, other: Moments) -> Moments:
        """These moments with bounds and extremes that hold another's as well; mean and deviation are the other's."""
        low, high = np.minimum, np.maximum
        return Moments(
            mean=other.mean,
            std=other.std,
            max=tuple(high(self.max, other.max).tolist()),
            min=tuple(low(self.min, other.min).tolist()),
            p99=tuple(high(self.p99, other.p99).tolist()),
            p01=tuple(low(self.p01, other.p01).tolist()),
        )

    def rescaling_to(self, other: Moments) -> tuple[Array, Array]:
        """Scale and shift, ``[D]`` each, that turn numbers normalised by ``other`` into those normalised by this."""
        low, high = np.array(self.p01), np.array(self.p99)
        other_low, other_high = np.array(other.p01), np.array(other.p99)
        scale = (other_high - other_low + EPSILON) / (high - low + EPSILON)
        return scale, scale - 1 + 2 * (other_low - low) / (high - low + EPSILON)

    def denormalize(self, values: ArrayLike) -> Array:
        """``[..., D]`` -> ``[..., D]``: -1 becomes p01 and 1 becomes p99; nothing is clipped."""
        low, high = np.array(self.p01), np.array(self.p99)
        return np.asarray((np.asarray(values, np.float64) + 1) / 2 * (high - low) + low)


@dataclass(frozen=True)
class Statistics:
    """The normalisation statistics of a policy's training data.

    Attributes:
        action: 7 dimensions: translation (m), roll, pitch, yaw (rad), gripper (1 open).
        proprio: 7 (WidowX) or 8 (Google Robot) dimensions, see :mod:`vlaser_gym.agents.vlaser.processor`.
        num_transitions: number of steps that the numbers were taken over.
        num_trajectories: number of episodes.
    """

    action: Moments
    proprio: Moments
    num_transitions: int
    num_trajectories: int

    def normalize_action(self, action: ArrayLike) -> Array:
        """``[..., 7]`` in data units -> normalised: the arm by its bounds, the gripper as it is."""
        return _keep_gripper(np.asarray(action, np.float64), self.action.normalize(action))

    def denormalize_action(self, action: ArrayLike) -> Array:
        """``[..., 7]`` normalised -> data units: the arm by its bounds, the gripper as it is."""
        return _keep_gripper(np.asarray(action, np.float64), self.action.denormalize(action))

    def save(self, folder: str | Path) -> None:
        """Write ``statistics.json`` into a checkpoint folder."""
        text = json.dumps(asdict(self), indent=2) + "\n"
        write_whole(Path(folder) / FILE_NAME, text.encode())

    @classmethod
    def load(cls, source: str | Path) -> Statistics:
        """Read a file of this layout, or ``statistics.json`` in a folder; ``bridge`` and ``fractal`` are known by name.

        Raises:
            InvalidConfigError: if the file is absent, damaged or has vectors of unequal length.
        """
        if str(source) in PUBLISHED:
            return PUBLISHED[str(source)]
        path = Path(source)
        file = path / FILE_NAME if path.is_dir() else path
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise _unreadable(file, error) from error
        return cls.from_dict(data, file)

    @classmethod
    def from_dict(cls, data: Any, source: object) -> Statistics:
        """Statistics from the content of a file; ``source`` names it in errors, as those of :meth:`load`."""
        try:
            return cls(
                action=_moments(data["action"]),
                proprio=_moments(data["proprio"]),
                num_transitions=int(data["num_transitions"]),
                num_trajectories=int(data["num_trajectories"]),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable(source, error) from error


def _unreadable(source: object, error: Exception) -> InvalidConfigError:
    return InvalidConfigError(
        f"{source} should hold data statistics (action and proprio with mean, std, max, min, p99, p01, "
        f"num_transitions, num_trajectories); got {type(error).__name__}: {error}."
    )


def _moments(data: dict[str, Any]) -> Moments:
    columns = {field.name: tuple(float(value) for value in data[field.name]) for field in fields(Moments)}
    if len({len(column) for column in columns.values()}) != 1:
        raise ValueError("vectors of unequal length")
    return Moments(**columns)


def _keep_gripper(raw: Array, scaled: Array) -> Array:
    return np.concatenate([scaled[..., :6], raw[..., 6:]], axis=-1)


#: Bridge V2 (WidowX): proprioception x, y, z, roll, pitch, yaw, openness.
BRIDGE = Statistics(
    action=Moments(
        mean=(
            0.00021758403454441577,
            0.00012507825158536434,
            -0.00017109014152083546,
            -0.0001617111702216789,
            -0.0002524859446566552,
            0.0002515816013328731,
            0.5879487991333008,
        ),
        std=(
            0.009632210247218609,
            0.013500974513590336,
            0.012510341592133045,
            0.028145477175712585,
            0.03028254210948944,
            0.07585873454809189,
            0.4877150356769562,
        ),
        max=(
            0.41691166162490845,
            0.25864794850349426,
            0.21218234300613403,
            3.122201919555664,
            1.8618112802505493,
            6.280478477478027,
            1.0,
        ),
        min=(
            -0.4007510244846344,
            -0.13874775171279907,
            -0.22553899884223938,
            -3.2010786533355713,
            -1.8618112802505493,
            -6.279075622558594,
            0.0,
        ),
        p99=(
            0.028122276067733765,
            0.040630316659808145,
            0.03994889184832546,
            0.08121915772557152,
            0.07724379181861864,
            0.20214049845933896,
            1.0,
        ),
        p01=(
            -0.028539552688598632,
            -0.041432044506073,
            -0.025977383628487588,
            -0.08020886614918708,
            -0.09213060349225997,
            -0.2054861941933632,
            0.0,
        ),
    ),
    proprio=Moments(
        mean=(
            0.30904945731163025,
            0.03045589290559292,
            0.06558273732662201,
            0.00706630339846015,
            -0.07828629016876221,
            0.10661222040653229,
            0.7149746417999268,
        ),
        std=(
            0.06059328466653824,
            0.09172434359788895,
            0.05185756832361221,
            0.1313914805650711,
            0.1698099821805954,
            0.573583722114563,
            0.3517141044139862,
        ),
        max=(
            0.5862360596656799,
            0.4034728705883026,
            0.36494991183280945,
            1.514088749885559,
            1.570796251296997,
            3.1415255069732666,
            1.1154625415802002,
        ),
        min=(
            -0.04167502000927925,
            -0.3945816159248352,
            -0.15537554025650024,
            -3.141592502593994,
            -1.4992541074752808,
            -3.14153790473938,
            0.04637829214334488,
        ),
        p99=(
            0.4527312242984769,
            0.23490807592868757,
            0.1973453593254087,
            0.37877989292144754,
            0.27723048210143925,
            1.8378053522109963,
            1.0105689764022827,
        ),
        p01=(
            0.17017078369855881,
            -0.16965715914964677,
            -0.054787094071507454,
            -0.3655692100524902,
            -0.5435487496852874,
            -1.3501438736915587,
            0.052190229296684265,
        ),
    ),
    num_transitions=2195527,
    num_trajectories=60064,
)

#: fractal20220817_data (Google Robot): proprioception x, y, z, qx, qy, qz, qw, closedness.
FRACTAL = Statistics(
    action=Moments(
        mean=(
            0.006987567059695721,
            0.006265868898481131,
            -0.012625112198293209,
            0.04333272576332092,
            -0.005756245460361242,
            0.0009130232501775026,
            0.5354204773902893,
        ),
        std=(
            0.06921152025461197,
            0.05971040576696396,
            0.07353048771619797,
            0.156105175614357,
            0.1316440999507904,
            0.14593836665153503,
            0.4971115291118622,
        ),
        max=(
            2.9984593391418457,
            22.09052848815918,
            2.7507524490356445,
            1.570636510848999,
            1.5321086645126343,
            1.5691522359848022,
            1.0,
        ),
        min=(
            -2.0204520225524902,
            -5.497899532318115,
            -2.031663417816162,
            -1.569917917251587,
            -1.569892168045044,
            -1.570419430732727,
            0.0,
        ),
        p99=(
            0.17824687153100965,
            0.14938379630446405,
            0.21842354819178575,
            0.5892666035890578,
            0.35272657424211445,
            0.44796681255102094,
            1.0,
        ),
        p01=(
            -0.22453527510166169,
            -0.14820013284683228,
            -0.231589707583189,
            -0.3517994859814644,
            -0.4193011274933815,
            -0.43643461108207704,
            0.0,
        ),
    ),
    proprio=Moments(
        mean=(
            0.5599020719528198,
            -0.08333852887153625,
            0.7770926356315613,
            -0.24803675711154938,
            0.49517107009887695,
            0.09266142547130585,
            0.20975486934185028,
            0.42613455653190613,
        ),
        std=(
            0.12432780861854553,
            0.11558882147073746,
            0.24595776200294495,
            0.5126982927322388,
            0.5218101143836975,
            0.16630391776561737,
            0.2754841148853302,
            0.45544859766960144,
        ),
        max=(
            1.0534898042678833,
            0.48018959164619446,
            1.6896663904190063,
            0.9999993443489075,
            0.9999874830245972,
            0.9554369449615479,
            0.9914546012878418,
            1.0,
        ),
        min=(
            -0.4436439275741577,
            -0.9970501065254211,
            -0.006579156965017319,
            -0.8643477559089661,
            -0.7079970240592957,
            -0.7688722014427185,
            -0.4999994933605194,
            0.0,
        ),
        p99=(
            0.8750156319141384,
            0.21247054174542404,
            1.0727112340927123,
            0.9377871316671368,
            0.9563051050901409,
            0.45990042358636823,
            0.7216041100025177,
            1.0,
        ),
        p01=(
            0.32481380939483645,
            -0.28334290891885755,
            0.14107070609927178,
            -0.686474204659462,
            -0.6808923494815826,
            -0.36045596331357954,
            -0.454380963742733,
            0.0,
        ),
    ),
    num_transitions=3786400,
    num_trajectories=87212,
)

#: Statistics that need no file, by the name of their data set.
PUBLISHED = {"bridge": BRIDGE, "fractal": FRACTAL}
#: Name of the published data set of each robot, and its statistics.
DATA_SET = {"widowx": "bridge", "google_robot": "fractal"}
OF_ROBOT = {robot: PUBLISHED[name] for robot, name in DATA_SET.items()}
#: Dimensions of an action that are normalised, and of proprioception by robot.
ACTION_NAMES = ("x", "y", "z", "roll", "pitch", "yaw")
PROPRIO_NAMES = {
    "widowx": ("x", "y", "z", "roll", "pitch", "yaw", "openness"),
    "google_robot": ("x", "y", "z", "qx", "qy", "qz", "qw", "closedness"),
}
