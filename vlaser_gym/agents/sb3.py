"""Models of Stable-Baselines3 that were trained on these environments, by ``algo=sb3_ppo`` and ``algo=sb3_sac``.

A model is ``model.zip`` with, beside it, ``normalization.pkl`` (its ``VecNormalize``, if there was one). Both hold
pickles, which can run any code when they are read. Here nothing in them runs: weights are read as plain tensors,
numbers and spaces by a reader that builds what such files consist of and refuses everything else. Only ``trust=True``
reads them as Stable-Baselines3 does, which models with classes of somebody's own need.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import pickle
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, StorageError
from vlaser_gym.storage.files import committed
from vlaser_gym.wrappers.action import ACTION_RANGE, scaled_actions

MODEL_FILE, NORMALIZATION_FILE = "model.zip", "normalization.pkl"
#: Observations that need no transform on their way to a model.
PLAIN = ("state", "proprio")
#: Rows of every forward pass. With one shape for all, actions do not depend on how many other environments there are.
BATCH = 8
#: Classes of Stable-Baselines3's policies by the module that a model names, and the algorithm to load it whole.
_POLICIES = {
    "stable_baselines3.sac.policies": ("MultiInputPolicy", "SAC"),
    "stable_baselines3.common.policies": ("MultiInputActorCriticPolicy", "PPO"),
}
#: What the numbers and spaces of a model consist of.
_PLAIN_CLASSES = {
    "builtins": ("bytearray", "complex", "set", "slice"),
    "collections": ("OrderedDict",),
    "gymnasium.spaces.box": ("Box",),
    "gymnasium.spaces.dict": ("Dict",),
    "numpy": ("dtype", "ndarray"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
    "numpy.core.numeric": ("_frombuffer",),
    "numpy.random._pcg64": ("PCG64",),
    "numpy.random._pickle": ("__bit_generator_ctor", "__generator_ctor"),
    "numpy.random.bit_generator": ("SeedSequence", "__pyx_unpickle_SeedSequence"),
    "stable_baselines3.common.buffers": ("DictReplayBuffer",),
    "stable_baselines3.common.running_mean_std": ("RunningMeanStd",),
    "stable_baselines3.common.vec_env.vec_normalize": ("VecNormalize",),
    "torch": ("device",),
}


class StableBaselines3Agent:
    """Acts with a model's most likely actions, ``[N, H, 7]``, scaled as in training by
    :class:`~vlaser_gym.wrappers.ScaleActions`.

    Args:
        checkpoint: a run directory of ``algo=sb3_ppo`` or ``algo=sb3_sac``, or a ``model.zip``.
        action_range: what +-1 of an action stands for.
        trust: read the files as Stable-Baselines3 does, which runs whatever code is in them.
        device: of the network.

    Raises:
        MissingAssetError: if there is no model.
        StorageError: if it is damaged.
        InvalidConfigError: for a model of other observations, actions or algorithms, and for files that hold more than
            numbers without ``trust``.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        *,
        action_range: Sequence[float] = ACTION_RANGE,
        trust: bool = False,
        device: str | None = None,
    ) -> None:
        if checkpoint is None:
            raise InvalidConfigError("agent=sb3 needs the run of algo=sb3_ppo or sb3_sac: give checkpoint=RUN.")
        self.source, self.action_range, self.trust = str(checkpoint), np.asarray(action_range, np.float64), trust
        file = Path(checkpoint) / MODEL_FILE if Path(checkpoint).is_dir() else Path(checkpoint)
        if not committed(file).is_file():
            raise MissingAssetError(
                f"agent=sb3 needs a {MODEL_FILE} of Stable-Baselines3; there is none at {checkpoint}: give "
                "checkpoint=RUN of algo=sb3_ppo or sb3_sac, or train one."
            )
        with _sentences(file):
            self.policy, self._about = _policy(committed(file), trust, device or "cpu")
        self.observes = _observes(self.policy.observation_space, file)
        self.horizon = _horizon(self.policy.action_space, file)
        statistics = committed(file.with_name(NORMALIZATION_FILE))
        self._normalization: Any = None
        if statistics.is_file():
            with _sentences(statistics), statistics.open("rb") as stream:
                self._normalization = pickle.load(stream) if trust else plain(stream)

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Nothing to reset: no memory and no random numbers."""

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Chunks ``[N, H, 7]``; see :class:`~vlaser_gym.agents.base.Agent`."""
        seen = {name: np.asarray(observations[name]) for name in self.observes}
        if self._normalization is not None:
            seen = self._normalization.normalize_obs(seen)
        chosen = [self._predict(seen, rows) for rows in np.array_split(np.arange(len(lanes)), -(-len(lanes) // BATCH))]
        actions = np.concatenate(chosen).reshape(len(lanes), self.horizon, 7)
        return scaled_actions(actions, self.action_range)

    def _predict(self, seen: Mapping[str, NDArray[Any]], rows: NDArray[np.int64]) -> NDArray[Any]:
        """Actions of some rows, in a batch that is filled up with copies of the first."""
        full = np.concatenate([rows, np.repeat(rows[:1], BATCH - len(rows))])
        actions, _ = self.policy.predict({name: values[full] for name, values in seen.items()}, deterministic=True)
        return np.asarray(actions, np.float64)[: len(rows)]

    def describe(self) -> dict[str, Any]:
        """The settings that decide how this agent acts."""
        normalized = self._normalization is not None
        return {"checkpoint": self.source, **self._about, "normalized": normalized, "horizon": self.horizon}


def _policy(file: Path, trust: bool, device: str) -> tuple[Any, dict[str, Any]]:
    """A model's policy, and what it is."""
    import stable_baselines3  # noqa: PLC0415  takes seconds
    import torch  # noqa: PLC0415

    with zipfile.ZipFile(file) as archive:
        data, weights = json.loads(archive.read("data")), archive.read("policy.pth")
    module, keywords = data["policy_class"]["__module__"], data["policy_kwargs"]
    if module not in _POLICIES:
        raise InvalidConfigError(
            f"{file} should be a model of PPO or SAC with the policy MultiInputPolicy; got one of {module}."
        )
    kind, algorithm = _POLICIES[module]
    about = {"policy": f"{module}.{kind}", "timesteps": data.get("num_timesteps")}
    if trust:
        return getattr(stable_baselines3, algorithm).load(file, device=device).policy, about
    if ":serialized:" in keywords:
        raise _untrusted(file, "classes in policy_kwargs")
    if module.endswith("common.policies"):
        keywords = {**keywords, "use_sde": data["use_sde"]}
    shapes = [plain(io.BytesIO(base64.b64decode(data[key][":serialized:"]))) for key in _SPACES]
    policy = getattr(importlib.import_module(module), kind)(*shapes, lambda progress: 0.0, **keywords).to(device)
    policy.load_state_dict(torch.load(io.BytesIO(weights), map_location=device, weights_only=True))
    policy.set_training_mode(False)
    return policy, about


_SPACES = ("observation_space", "action_space")


class _PlainReader(pickle.Unpickler):
    """Builds numbers, arrays and spaces; whatever else a file asks for is refused before it runs."""

    def find_class(self, module: str, name: str) -> Any:
        """See :class:`pickle.Unpickler`."""
        if name not in _PLAIN_CLASSES.get(module, ()):
            raise NotPlainError(f"{module}.{name}")
        return super().find_class(module, name)


class NotPlainError(Exception):
    """A pickle asks for something that is neither number nor space."""


def plain(stream: IO[bytes]) -> Any:
    """The types that Stable-Baselines3 pickles beside its networks: numbers, arrays, spaces, statistics, buffers.

    Raises:
        NotPlainError: if the file asks for anything else, before that runs.
    """
    return _PlainReader(stream).load()


def _untrusted(file: Path, what: str) -> InvalidConfigError:
    return InvalidConfigError(
        f"{file} holds more than numbers ({what}), and reading that could run any code: if you made it, or trust who "
        "did, give agent.trust=true."
    )


@contextmanager
def _sentences(file: Path) -> Iterator[None]:
    """Inside, a damaged file and one that holds more than numbers are one sentence each."""
    try:
        yield
    except NotPlainError as error:
        raise _untrusted(file, str(error)) from error
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        said = (str(error) or type(error).__name__).splitlines()[0]
        raise StorageError(
            f"{file} should hold a model of Stable-Baselines3, but cannot be read ({said}); put back a whole copy."
        ) from error


def _observes(space: Any, file: Path) -> tuple[str, ...]:
    names = tuple(space.spaces) if isinstance(space, spaces.Dict) else ()
    if not names or not set(names) <= set(PLAIN):
        raise InvalidConfigError(
            f"{file} should read {' or '.join(PLAIN)}, as models of algo=sb3_ppo and sb3_sac do; it reads {space}."
        )
    return names


def _horizon(space: Any, file: Path) -> int:
    shape = tuple(space.shape or ())
    if len(shape) not in (1, 2) or shape[-1] != 7:
        raise InvalidConfigError(f"{file} should give actions [7] or chunks [H, 7]; it gives {list(shape)}.")
    return shape[0] if len(shape) == 2 else 1
