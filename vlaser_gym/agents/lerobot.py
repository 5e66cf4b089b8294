"""Policies of LeRobot (act, diffusion, pi0, pi05, smolvla, xvla, groot ...) as agents, with their own processors.

Written against LeRobot 0.6.1, which wants versions that this gym's ``constraints.txt`` does not have
(``constraints-lerobot.txt`` has some that go together).
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.agents.converted import resized
from vlaser_gym.conventions import Convention
from vlaser_gym.envs.address import Address
from vlaser_gym.envs.robots import is_image
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.storage.hub import local_folder

STATE, IMAGES = "observation.state", "observation.images."
#: What LeRobot calls images that its policies are trained without.
_EMPTY = "empty_camera"
#: Attributes in which policies keep what they saw and decided (``reset`` of each modeling file).
_MEMORY = ("_queues", "_action_queue", "temporal_ensembler", "_prev_mean")
#: Kinds whose chunks are made of queues that ``select_action`` alone fills.
_BY_QUEUES = ("diffusion", "multi_task_dit", "tdmpc", "vqbet")
#: Numbers of this gym's state.
_STATE_SIZE = 8


class LeRobotAgent:
    """A pretrained policy of LeRobot.

    Policies that decide from one observation give their chunk, of which ``act_steps`` are executed; those that
    remember observations (diffusion, vqbet), plan on from their last plan (tdmpc) or blend chunks (act with
    ``temporal_ensemble_coeff``) are asked at every step. Environments are asked one after another, each with noise from
    its episode's address, so that an episode's actions depend on nothing else.

    Args:
        checkpoint: folder of ``save_pretrained`` or a ``lerobot-train`` checkpoint's ``pretrained_model``, or the
            Hub's ``ORG/NAME``.
        keys: what the policy calls ``image``, ``wrist_image``, ... ``proprio``; by default its only image, or the one
            of that camera's name, and ``observation.state``.
        act_steps: actions executed of a chunk; ``None``: the checkpoint's ``n_action_steps``.
        convention: what its states and actions mean (docs/conventions.md); ``None``: this gym's own.
        device: of torch.

    Raises:
        InvalidConfigError: if LeRobot is not installed, the checkpoint is none, or the policy reads something that this
            gym does not show.
    """

    def __init__(
        self,
        checkpoint: str | None = None,
        keys: Mapping[str, str] | None = None,
        act_steps: int | None = None,
        convention: str | Mapping[str, Any] | None = None,
        device: str = "cpu",
    ) -> None:
        if checkpoint is None:
            raise InvalidConfigError("agent=lerobot needs a pretrained policy: give checkpoint=FOLDER, or ORG/NAME.")
        self.checkpoint = str(checkpoint)
        self.policy, self._before, self._after = _load(local_folder(self.checkpoint, "checkpoint"), device)
        self.convention = None if convention is None else Convention.parse(convention)
        config = self.policy.config
        self.keys = self._named(config.input_features or {}, keys or {})
        self.observes = (*self.keys, "instruction")
        blends = getattr(config, "temporal_ensemble_coeff", None) is not None
        self._at_every_step = config.n_obs_steps > 1 or blends or config.type in _BY_QUEUES
        self.act_steps = act_steps or int(getattr(config, "n_action_steps", 1))
        self._device = torch.device(device)
        self._lanes: dict[int, tuple[np.random.Generator, dict[str, Any]]] = {}

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """Forget these environments' past, and seed their noise."""
        for lane, address in zip(lanes, addresses, strict=True):
            self.policy.reset()
            self._lanes[int(lane)] = address.rng(), self._memory()

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> NDArray[np.float64]:
        """Chunks ``[N, H, size]`` in the policy's convention."""
        return np.stack([self._decide(observations, row, int(lane)) for row, lane in enumerate(lanes)])

    def describe(self) -> dict[str, Any]:
        """See :class:`~vlaser_gym.agents.base.Agent`."""
        steps = 1 if self._at_every_step else self.act_steps
        return {"checkpoint": self.checkpoint, "policy": str(self.policy.config.type), "act_steps": steps}

    def _decide(self, observations: Observations, row: int, lane: int) -> NDArray[np.float64]:
        """An environment's actions ``[H, size]``."""
        generator, memory = self._lanes[lane]
        vars(self.policy).update(memory)
        devices = [self._device] if self._device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(int(generator.integers(2**63)))
            batch = self._before(self._batch(observations, row))
            if self._at_every_step:
                chunk = self._after(self.policy.select_action(batch))[:, None]
            else:
                chunk = self._after(self.policy.predict_action_chunk(batch)[:, : self.act_steps])
        self._lanes[lane] = generator, self._memory()
        return np.asarray(chunk[0].float().cpu().numpy(), np.float64)

    def _batch(self, observations: Observations, row: int) -> dict[str, Any]:
        """Batch of one observation in LeRobot's form: images ``[1, 3, H, W]`` from 0 to 1, texts as a list."""
        batch: dict[str, Any] = {"task": [observations["instruction"][row]], "robot_type": ""}
        for name, key in self.keys.items():
            value = np.asarray(observations[name])[row : row + 1]
            if is_image(name):
                value = resized(value, *self._size(key, value)).transpose(0, 3, 1, 2).astype(np.float32) / 255
            batch[key] = torch.from_numpy(np.ascontiguousarray(value, np.float32))
        return batch

    def _size(self, key: str, value: NDArray[Any]) -> tuple[int, int]:
        """Pixels that the policy was trained with; those that fit images into a square themselves get ours."""
        config = self.policy.config
        fits_itself = getattr(config, "resize_imgs_with_padding", None) or getattr(config, "image_resolution", None)
        height, width = value.shape[1:3] if fits_itself else config.input_features[key].shape[1:]
        return int(height), int(width)

    def _memory(self) -> dict[str, Any]:
        """A copy of the policy's recurrent state that later decisions do not change."""
        return {name: copy.deepcopy(value) for name, value in vars(self.policy).items() if name in _MEMORY}

    def _named(self, features: Mapping[str, Any], given: Mapping[str, str]) -> dict[str, str]:
        """The policy's own names of the observations that it reads."""
        kinds = {key: str(getattr(feature.type, "value", feature.type)) for key, feature in features.items()}
        images = [key for key, kind in kinds.items() if kind == "VISUAL" and _EMPTY not in key]
        if len(images) == 1 and "image" not in given:
            given = {"image": images[0], **given}
        # As data sets of this gym call them, and those of LIBERO and Bridge.
        cameras = {"main": "image", "image": "image", "wrist": "wrist_image", "wrist_image": "wrist_image"}
        by_name = {cameras.get(key.removeprefix(IMAGES), ""): key for key in images if key not in given.values()}
        keys = {**{name: key for name, key in by_name.items() if name and name not in given}, **given}
        if "proprio" not in keys and STATE in kinds:
            keys["proprio"] = STATE
        self._check(keys, features, kinds)
        return keys

    def _check(self, keys: Mapping[str, str], features: Mapping[str, Any], kinds: Mapping[str, str]) -> None:
        """Raise :class:`InvalidConfigError` unless this gym shows all that the policy reads, in its sizes."""
        fed = set(keys.values())
        unfed = [key for key, kind in kinds.items() if kind in ("VISUAL", "STATE", "ENV") and key not in fed]
        unfed = [key for key in unfed if _EMPTY not in key]
        unknown = [key for key in fed if key not in kinds]
        if unfed or unknown:
            raise InvalidConfigError(
                f"The policy {self.checkpoint} reads {', '.join(kinds) or 'nothing'}; it would not be given "
                f"{', '.join(unfed) or 'nothing of it'}, and be given {', '.join(unknown) or 'nothing'} beside: "
                "say what it calls image, wrist_image and proprio by agent.keys."
            )
        size = len(self.convention.state.names) if self.convention is not None else _STATE_SIZE
        if "proprio" in keys and tuple(features[keys["proprio"]].shape) != (size,):
            raise InvalidConfigError(
                f"The policy {self.checkpoint} reads a state of {tuple(features[keys['proprio']].shape)} numbers; it "
                f"would be shown {size}: name the convention that it was trained with by agent.convention "
                "(docs/conventions.md)."
            )


def _load(folder: Path, device: str) -> tuple[Any, Any, Any]:
    """A policy with its pre- and its post-processor."""
    try:
        from lerobot.configs.policies import PreTrainedConfig  # noqa: PLC0415  (large, and often not installed)
        from lerobot.policies.factory import get_policy_class, make_pre_post_processors  # noqa: PLC0415
    except ImportError as error:
        raise InvalidConfigError(
            f"agent=lerobot needs LeRobot, which cannot be imported here ({error}): it wants Python 3.12 and "
            "constraints-lerobot.txt (docs/neighbours.md)."
        ) from error
    try:
        config = PreTrainedConfig.from_pretrained(folder)
        if getattr(config, "use_peft", False):
            raise InvalidConfigError(f"{folder} has adapters without their model: merge them before they are served.")
        config.device = device
        policy = get_policy_class(config.type).from_pretrained(folder, config=config)
        overrides = {"device_processor": {"device": device}}
        before, after = make_pre_post_processors(config, str(folder), preprocessor_overrides=overrides)
    except InvalidConfigError:
        raise
    except Exception as error:  # those of its parser and of what each kind imports have no class in common
        raise InvalidConfigError(
            f"{folder} should hold a pretrained policy of LeRobot with its processors; it cannot be loaded "
            f"({type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'})."
        ) from error
    policy.to(device).eval()
    return policy, before, after
