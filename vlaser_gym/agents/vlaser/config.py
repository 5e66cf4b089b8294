"""Every size and constant of a Vlaser policy in one place, with presets."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.storage.files import write_whole

#: Numbers of proprioception per robot; the only thing in a checkpoint that tells the robots apart.
PROPRIO_DIMS = {"widowx": 7, "google_robot": 8}

#: Actions executed per decision in Vlaser's evaluation scripts (OpenGVLab/Vlaser 40d7821), of the 4 predicted.
ACT_STEPS = {"widowx": 4, "google_robot": 2}

#: Period of the time embedding in the evaluation configs of OpenGVLab/Vlaser (40d7821). No checkpoint stores it.
TIME_MAX_PERIODS = {"widowx": 10_000.0, "google_robot": 100.0}

#: Images and question see each other, as in the policy; an answer sees them and what of itself stands before.
PREFIX_MASK = "prefix"


@dataclass(frozen=True)
class VlaserConfig:
    """Shape and constants of a policy. Defaults are Vlaser-2B-VLA's (OpenGVLab/Vlaser 40d7821, InternVL3-2B).

    Attributes:
        name: preset that it came from; free text.
        image_size: side of the square input image (pixels).
        patch_size: side of a vision patch (pixels); the patch grid has even sides, as 2x2 patches make a token.
        vision_width, vision_layers, vision_heads, vision_mlp: vision transformer.
        drop_path: largest rate of the vision transformer's stochastic depth (linear ramp), in training mode only.
            The released model trained with 0.1; likelihoods need 0.
        layer_scale_init: initial value of the vision transformer's layer scales.
        width, layers, heads, kv_heads, head_dim, mlp_width: language model; the action expert has the same layers,
            heads and ``head_dim``.
        rope_theta: base of the rotary embedding, both experts.
        vocab_size: rows of the token embedding.
        max_length: length of the image-text block, padding included (tokens).
        image_token_id: token that image features replace.
        pad_id: token of the padding on the right.
        position_start: first position of the image-text block; proprioception stands at 1, actions from 2 on.
        expert_width, expert_mlp: action expert.
        horizon: actions per chunk.
        act_steps: actions of a chunk that are executed; ``None``: the robot's, see :attr:`executed_steps`.
        proprio_dim: 7 (WidowX) or 8 (Google Robot).
        action_dim: numbers per action.
        num_flow_steps: Euler steps of a decision.
        initial_noise: standard deviation of the flow's first state in a decision, 0 to 1: as the flow was trained (1),
            or less, which acts nearer to the middle of what it learned; at 0 a policy is deterministic.
        time_max_period: longest period of the flow-time embedding.
        sigma_min: width of the flow's end at the data.
        time_distribution: ``"beta"`` or ``"uniform"``: flow times in training.
        init_std: standard deviation of fresh weights.
        length_bucket: prompts are cut behind their last token to multiples of this many tokens before they are
            encoded (0: never). Changes nothing but time: padding is invisible and positions are fixed.
        reasoning_length: length of images, question and answer together (tokens), for a policy that answers questions
            by a language head; ``None``: it has none.
        reasoning_mask: who sees whom among them: ``"prefix"``, images and question each other, the answer what stands
            before it. ``None`` without a language head.
    """

    name: str = "vlaser_2b"
    image_size: int = 448
    patch_size: int = 14
    vision_width: int = 1024
    vision_layers: int = 24
    vision_heads: int = 16
    vision_mlp: int = 4096
    drop_path: float = 0.0
    layer_scale_init: float = 0.1
    width: int = 1536
    layers: int = 28
    heads: int = 12
    kv_heads: int = 2
    head_dim: int = 128
    mlp_width: int = 8960
    rope_theta: float = 1_000_000.0
    vocab_size: int = 151_930
    max_length: int = 384
    image_token_id: int = 151_667
    pad_id: int = 151_643
    position_start: int = 1
    expert_width: int = 768
    expert_mlp: int = 8960
    horizon: int = 4
    act_steps: int | None = None
    proprio_dim: int = 7
    action_dim: int = 7
    num_flow_steps: int = 10
    initial_noise: float = 1.0
    time_max_period: float = 100.0
    sigma_min: float = 0.001
    time_distribution: str = "beta"
    init_std: float = 0.02
    length_bucket: int = 32
    reasoning_length: int | None = None
    reasoning_mask: str | None = None

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            self._check_type(field.name, field.type)
        for name in _POSITIVE:
            if getattr(self, name) <= 0:
                raise InvalidConfigError(f"{name} should be positive; got {getattr(self, name)}.")
        for holds, sentence in self._rules():
            if not holds:
                raise InvalidConfigError(sentence)

    def _check_type(self, name: str, kind: Any) -> None:
        value = getattr(self, name)
        if value is None and kind.endswith(" | None"):
            return
        kind = kind.removesuffix(" | None")
        if kind == "float" and isinstance(value, int) and not isinstance(value, bool):
            object.__setattr__(self, name, float(value))
        elif type(value).__name__ != kind:
            raise InvalidConfigError(f"{name} should be of type {kind}; got {value!r}.")

    def _rules(self) -> list[tuple[bool, str]]:
        side = self.image_size // self.patch_size
        return [
            (
                self.image_size == side * self.patch_size and side % 2 == 0,
                f"image_size should be an even number of patches of {self.patch_size}; got {self.image_size}.",
            ),
            (
                self.vision_width % self.vision_heads == 0,
                f"vision_width should be a multiple of {self.vision_heads} heads; got {self.vision_width}.",
            ),
            (
                self.heads % self.kv_heads == 0,
                f"heads should be a multiple of kv_heads={self.kv_heads}; got {self.heads}.",
            ),
            (self.head_dim % 2 == 0, f"head_dim should be even; got {self.head_dim}."),
            (
                self.expert_width % 2 == 0 and self.expert_width >= 4,
                f"expert_width should be even and at least 4; got {self.expert_width}.",
            ),
            (
                self.num_image_tokens < self.max_length,
                f"max_length should exceed the {self.num_image_tokens} image tokens; got {self.max_length}.",
            ),
            (
                0 <= self.image_token_id < self.vocab_size and 0 <= self.pad_id < self.vocab_size,
                f"image_token_id and pad_id should be below vocab_size={self.vocab_size}; "
                f"got {self.image_token_id} and {self.pad_id}.",
            ),
            (
                self.act_steps is None or 1 <= self.act_steps <= self.horizon,
                f"act_steps should be 1 to {self.horizon}, the actions of a chunk, or null; got {self.act_steps}.",
            ),
            (
                self.time_distribution in ("beta", "uniform"),
                f"time_distribution should be 'beta' or 'uniform'; got {self.time_distribution!r}.",
            ),
            (0 <= self.initial_noise <= 1, f"initial_noise should be in [0, 1]; got {self.initial_noise}."),
            (0 <= self.sigma_min < 1, f"sigma_min should be in [0, 1); got {self.sigma_min}."),
            (0 <= self.drop_path < 1, f"drop_path should be in [0, 1); got {self.drop_path}."),
            (self.length_bucket >= 0, f"length_bucket should be 0 or more; got {self.length_bucket}."),
            (
                self.reasoning_length is None or self.reasoning_length > self.num_image_tokens,
                f"reasoning_length should exceed {self.num_image_tokens} image tokens; got {self.reasoning_length}.",
            ),
            (
                self.reasoning_mask == (None if self.reasoning_length is None else PREFIX_MASK),
                f"reasoning_mask should be {PREFIX_MASK!r} with a reasoning_length, and null without; got "
                f"{self.reasoning_mask!r}.",
            ),
        ]

    @property
    def grid(self) -> int:
        """Patches along one side of the image."""
        return self.image_size // self.patch_size

    @property
    def num_image_tokens(self) -> int:
        """Tokens of one image: a quarter of its patches."""
        return (self.grid // 2) ** 2

    @property
    def answers(self) -> bool:
        """True if the policy has a language head and answers questions."""
        return self.reasoning_length is not None

    @property
    def robot(self) -> str | None:
        """The robot whose proprioception has ``proprio_dim`` numbers."""
        return next((robot for robot, dim in PROPRIO_DIMS.items() if dim == self.proprio_dim), None)

    @property
    def executed_steps(self) -> int:
        """Actions of a chunk that are executed: ``act_steps``, by default 4 (WidowX) or 2 (Google Robot)."""
        return self.act_steps or min(self.horizon, ACT_STEPS.get(self.robot or "", self.horizon))

    def replace(self, **changes: Any) -> VlaserConfig:
        """A copy with other values.

        Raises:
            UnknownNameError: for a name that is no field.
            InvalidConfigError: for values that do not fit.
        """
        known = {field.name for field in dataclasses.fields(self)}
        for name in changes:
            if name not in known:
                raise UnknownNameError("policy setting", name, known)
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """All fields that are set, ready for JSON."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> VlaserConfig:
        """The inverse of :meth:`to_dict`; absent fields get their defaults."""
        return cls().replace(**values)

    def save(self, path: str | Path) -> None:
        """Write the fields as JSON."""
        write_whole(Path(path), (json.dumps(self.to_dict(), indent=2) + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> VlaserConfig:
        """The inverse of :meth:`save`."""
        return cls.from_dict(json.loads(Path(path).read_text()))

    @classmethod
    def preset(cls, name: str, robot: str = "widowx", **changes: Any) -> VlaserConfig:
        """A named configuration for a robot.

        Args:
            name: ``"vlaser_2b"``, ``"vlaser_8b"``, ``"nano"`` or ``"toy"``.
            robot: ``"widowx"`` or ``"google_robot"``: sets ``proprio_dim`` and, for the released shapes,
                ``time_max_period``.
            **changes: fields that differ from the preset.
        """
        if name not in PRESETS:
            raise UnknownNameError("policy preset", name, PRESETS)
        if robot not in PROPRIO_DIMS:
            raise UnknownNameError("robot", robot, PROPRIO_DIMS)
        fields = {"time_max_period": TIME_MAX_PERIODS[robot], **PRESETS[name]}
        return cls().replace(**{"name": name, "proprio_dim": PROPRIO_DIMS[robot], **fields, **changes})


_POSITIVE = (
    *("image_size", "patch_size", "vision_width", "vision_layers", "vision_heads", "vision_mlp"),
    *("width", "layers", "heads", "kv_heads", "head_dim", "mlp_width", "rope_theta", "vocab_size"),
    *("expert_width", "expert_mlp", "horizon", "proprio_dim", "action_dim", "num_flow_steps"),
    *("time_max_period", "init_std"),
)

#: Differences of each preset from the defaults.
PRESETS: dict[str, dict[str, Any]] = {
    "vlaser_2b": {},
    # InternVL3-8B's language model; the action expert's sizes are those of the 8B code path, which was never released.
    "vlaser_8b": {"width": 3584, "heads": 28, "kv_heads": 4, "mlp_width": 18_944, "expert_mlp": 5600},
    # Small enough that one decision for 8 environments takes under 50 ms on two CPU cores. Reads bytes; the ids are
    # those of the byte tokenizer.
    "nano": {
        "image_size": 120,
        "patch_size": 12,
        "vision_width": 96,
        "vision_layers": 4,
        "vision_heads": 4,
        "vision_mlp": 288,
        "layer_scale_init": 1.0,
        "width": 96,
        "layers": 3,
        "heads": 3,
        "kv_heads": 1,
        "head_dim": 32,
        "mlp_width": 256,
        "rope_theta": 10_000.0,
        "vocab_size": 512,
        "max_length": 72,
        "image_token_id": 261,
        "pad_id": 256,
        "expert_width": 96,
        "expert_mlp": 256,
        "num_flow_steps": 5,
        "time_max_period": 100.0,
        "init_std": 0.05,
        "length_bucket": 0,
    },
    # The released layout at the smallest size, for tests.
    "toy": {
        "vision_width": 32,
        "vision_layers": 2,
        "vision_heads": 2,
        "vision_mlp": 64,
        "width": 48,
        "layers": 2,
        "heads": 2,
        "kv_heads": 1,
        "mlp_width": 96,
        "expert_width": 32,
        "expert_mlp": 64,
    },
}
