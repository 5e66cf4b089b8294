"""Transforms of observations into the policy's inputs and of its outputs into actions: small steps in a row.

A transform takes and returns a dictionary of arrays with one row per environment; :class:`Compose` runs several. The
inputs are ``image`` (uint8 ``[N, H, W, 3]``), ``proprio`` (``[N, 8]``: TCP position in m and quaternion wxyz in the
base frame, gripper openness) and ``instruction`` (N strings); the outputs ``pixels`` (uint8 ``[N, S, S, 3]``),
``proprio`` (float32, normalised) and ``input_ids`` (int64 ``[N, L]``). Conventions and numbers: the SimplerEnv adapters
of OpenGVLab/Vlaser.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.agents.vlaser.checkpoint import is_ours, read_description
from vlaser_gym.agents.vlaser.config import PROPRIO_DIMS, VlaserConfig
from vlaser_gym.agents.vlaser.statistics import DATA_SET, OF_ROBOT, Statistics
from vlaser_gym.agents.vlaser.statistics import FILE_NAME as STATISTICS_FILE
from vlaser_gym.agents.vlaser.tokenizer import BUILT_IN, IMAGE, Tokenizer, has_qwen_files, kind_of, load_tokenizer
from vlaser_gym.conventions import rotations
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, UnknownNameError
from vlaser_gym.storage.files import write_whole

Array = NDArray[np.float64]
Data = Mapping[str, Any]

#: The prompt that Vlaser was fine-tuned with; its system message is the word None.
VLASER_TEMPLATE = (
    "<|im_start|>system\nNone<|im_end|>\n"
    "<|im_start|>user\n<img>{image}</img>\n{instruction}<|im_end|>\n"
    "<|im_start|>assistant\n"
)
#: The prompt of the small model.
SHORT_TEMPLATE = "<img>{image}</img>{instruction}\n"
TEMPLATES = {"vlaser": VLASER_TEMPLATE, "short": SHORT_TEMPLATE}

#: ImageNet mean and standard deviation, RGB, of values 0..1.
IMAGE_MEAN = (0.485, 0.456, 0.406)
IMAGE_STD = (0.229, 0.224, 0.225)

#: Bridge measures orientation relative to a gripper that points down: the default rotation of its TCP frame.
BRIDGE_DEFAULT_ROTATION = np.array([[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]])

#: Name of the file inside a checkpoint folder that says which prompt and robot the policy was trained with.
FILE_NAME = "processor.json"


class Transform(Protocol):
    """One step on the way; leaves entries that it does not know alone."""

    def __call__(self, data: Data) -> Data:
        """The transformed data as a new dictionary."""


@dataclass(frozen=True)
class Compose:
    """Transforms that are applied one after the other."""

    transforms: Sequence[Transform]

    def __call__(self, data: Data) -> Data:
        """See :class:`Transform`."""
        for transform in self.transforms:
            data = transform(data)
        return data


#: ``lanczos4`` (8x8 neighbours, no antialias) is what the released policies were evaluated with. ``area`` averages all
#: pixels, which keeps small objects when an image shrinks fivefold.
FILTERS = {"lanczos4": cv2.INTER_LANCZOS4, "area": cv2.INTER_AREA}


@dataclass(frozen=True)
class ResizeImage:
    """``image`` -> ``pixels``: straight to ``size x size``, no crop, aspect not kept.

    Attributes:
        size: side (pixels).
        filter: a key of :data:`FILTERS`.
    """

    size: int
    filter: str = "lanczos4"

    def __post_init__(self) -> None:
        if self.filter not in FILTERS:
            raise UnknownNameError("resize filter", self.filter, FILTERS)

    def __call__(self, data: Data) -> Data:
        """See :class:`Transform`."""
        images = np.asarray(data["image"])
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[-1] != 3:
            raise InvalidConfigError(
                f"Images should be uint8 of shape [N, H, W, 3]; got {images.dtype} of shape {list(images.shape)}."
            )
        pixels = np.empty((len(images), self.size, self.size, 3), np.uint8)
        for image, out in zip(images, pixels, strict=True):
            cv2.resize(image, (self.size, self.size), dst=out, interpolation=FILTERS[self.filter])
        return {**data, "pixels": pixels}


@dataclass(frozen=True)
class TokenizePrompt:
    """``instruction`` -> ``input_ids``: the template filled in, cut or padded on the right to ``max_length``.

    Attributes:
        tokenizer: makes the ids.
        num_image_tokens: places for image features.
        max_length: length of every row.
        template: text with ``{image}`` and ``{instruction}``.
        wrap: text with ``{instruction}`` put in the instruction's place, for checkpoints trained on longer sentences.
    """

    tokenizer: Tokenizer
    num_image_tokens: int
    max_length: int
    template: str = VLASER_TEMPLATE
    wrap: str = "{instruction}"
    _cache: dict[str, NDArray[np.int64]] = field(default_factory=dict, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name, text, places in (
            ("template", self.template, ("{image}", "{instruction}")),
            ("wrap", self.wrap, ("{instruction}",)),
        ):
            if any(text.count(place) != 1 for place in places):
                raise InvalidConfigError(f"A prompt {name} holds {' and '.join(places)} once each; got {text!r}.")
        if len(self._tokens("")) > self.max_length:
            raise InvalidConfigError(
                f"A prompt of {self.max_length} tokens has no room for {self.num_image_tokens} image tokens and the "
                f"template, which take {len(self._tokens(''))}."
            )

    def __call__(self, data: Data) -> Data:
        """See :class:`Transform`."""
        rows = [self.ids(text) for text in data["instruction"]]
        return {**data, "input_ids": np.stack(rows) if rows else np.empty((0, self.max_length), np.int64)}

    def ids(self, instruction: str) -> NDArray[np.int64]:
        """``[max_length]`` ids of one prompt; remembered, because a task has few instructions.

        Raises:
            InvalidConfigError: if the instruction itself holds image tokens.
        """
        if instruction in self._cache:
            return self._cache[instruction]
        tokens = self._tokens(instruction)
        if tokens.count(self.tokenizer.image_id) != self.num_image_tokens or self.tokenizer.pad_id in tokens:
            raise InvalidConfigError(f"An instruction is plain text without special tokens; got {instruction!r}.")
        if len(tokens) > self.max_length:
            warnings.warn(
                f"The prompt of {instruction!r} has {len(tokens)} tokens and is cut to {self.max_length}.", stacklevel=2
            )
        row = np.full(self.max_length, self.tokenizer.pad_id, np.int64)
        row[: len(tokens)] = tokens[: self.max_length]
        self._cache[instruction] = row
        return row

    def _tokens(self, instruction: str) -> list[int]:
        wrapped = self.wrap.replace("{instruction}", instruction)
        head, tail = self.template.split("{instruction}")
        text = head.replace("{image}", IMAGE * self.num_image_tokens) + wrapped + tail
        return self.tokenizer.encode(text)


@dataclass(frozen=True)
class RobotProprio:
    """``proprio``: the environment's 8 numbers -> the 7 or 8 that Vlaser was trained on, see :func:`robot_proprio`."""

    robot: str

    def __call__(self, data: Data) -> Data:
        """See :class:`Transform`."""
        return {**data, "proprio": robot_proprio(data["proprio"], self.robot)}


@dataclass(frozen=True)
class NormalizeProprio:
    """``proprio`` -> float32 in [-1, 1] by the data's percentiles."""

    statistics: Statistics

    def __call__(self, data: Data) -> Data:
        """See :class:`Transform`."""
        return {**data, "proprio": self.statistics.proprio.normalize(data["proprio"]).astype(np.float32)}


def robot_proprio(proprio: ArrayLike, robot: str) -> Array:
    """The environment's proprioception in the words of a robot's data set.

    Args:
        proprio: ``[..., 8]``: TCP position (m) and quaternion wxyz in the base frame, gripper openness.
        robot: ``"widowx"`` or ``"google_robot"``.

    Returns:
        WidowX ``[..., 7]``: position, roll, pitch, yaw (rad, relative to a gripper that points down), openness.
        Google Robot ``[..., 8]``: position, quaternion xyzw, closedness. Not normalised.

    Raises:
        InvalidConfigError: if the last axis is not 8 or a number is not finite.
        UnknownNameError: for another robot.
    """
    proprio = np.asarray(proprio, np.float64)
    if proprio.ndim < 1 or proprio.shape[-1] != 8 or not np.isfinite(proprio).all():
        raise InvalidConfigError(
            f"Proprioception is 8 finite numbers per environment; got shape {list(proprio.shape)}."
        )
    position, quaternion, openness = proprio[..., :3], proprio[..., 3:7], proprio[..., 7:]
    if robot == "widowx":
        relative = rotations.matrix_from_quaternion(quaternion) @ BRIDGE_DEFAULT_ROTATION.T
        return np.concatenate([position, rotations.euler_from_matrix(relative), openness], axis=-1)
    if robot == "google_robot":
        return np.concatenate([position, np.roll(quaternion, -1, axis=-1), 1 - openness], axis=-1)
    raise UnknownNameError("robot", robot, PROPRIO_DIMS)


class Inputs(NamedTuple):
    """The policy's inputs.

    Attributes:
        pixel_values: ``[N, 3, S, S]`` normalised image, float32, on the policy's device.
        input_ids: ``[N, L]`` int64, on the CPU.
        proprio: ``[N, P]`` in [-1, 1], float32, on the CPU.
    """

    pixel_values: torch.Tensor
    input_ids: torch.Tensor
    proprio: torch.Tensor


@dataclass(frozen=True)
class Processor:
    """Everything between a robot's environment and the policy, both ways, except the gripper's memory.

    Attributes:
        prompt: makes the token ids.
        resize: makes the policy's square image.
        robot: ``"widowx"`` or ``"google_robot"``.
        statistics: of the data that the policy was trained on.
        image_size: of the images that the policy was trained on before ``resize``, such as ``"160x120"``; empty for
            the camera's own.
    """

    prompt: TokenizePrompt
    resize: ResizeImage
    robot: str
    statistics: Statistics
    image_size: str = ""

    def __post_init__(self) -> None:
        if self.robot not in PROPRIO_DIMS:
            raise UnknownNameError("robot", self.robot, PROPRIO_DIMS)
        expected, got = PROPRIO_DIMS[self.robot], self.statistics.proprio.size
        if got != expected:
            raise InvalidConfigError(
                f"Statistics for {self.robot} have {expected} proprioceptive dimensions; these have {got}. "
                f"Give those of the data that this checkpoint was trained on."
            )

    @classmethod
    def build(
        cls,
        config: VlaserConfig,
        tokenizer: Tokenizer,
        *,
        robot: str | None = None,
        statistics: Statistics | None = None,
        template: str = VLASER_TEMPLATE,
        wrap: str = "{instruction}",
        resize: str = "lanczos4",
    ) -> Processor:
        """The processor of a policy.

        Args:
            config: the policy's.
            tokenizer: its padding and image tokens must be the policy's.
            robot: ``"widowx"`` or ``"google_robot"``; by default the one whose proprioception the policy reads.
            statistics: of the data that the policy was trained on. A policy that was trained on nothing yet takes those
                of the robot's published data set by default.
            template: see :class:`TokenizePrompt`.
            wrap: see :class:`TokenizePrompt`.
            resize: a key of :data:`FILTERS`.

        Raises:
            InvalidConfigError: if tokenizer, robot or statistics do not fit the policy.
        """
        robot = config.robot if robot is None else robot
        if robot not in PROPRIO_DIMS:
            raise UnknownNameError("robot", robot, PROPRIO_DIMS)
        if PROPRIO_DIMS[robot] != config.proprio_dim:
            raise InvalidConfigError(
                f"A policy for {robot} reads {PROPRIO_DIMS[robot]} proprioceptive numbers; this checkpoint reads "
                f"{config.proprio_dim}, so it is for {config.robot or 'no known robot'}."
            )
        if (tokenizer.pad_id, tokenizer.image_id) != (config.pad_id, config.image_token_id):
            raise InvalidConfigError(
                f"The policy's padding and image tokens are {config.pad_id} and {config.image_token_id}; the "
                f"tokenizer's are {tokenizer.pad_id} and {tokenizer.image_id}. Give the one that it was trained with."
            )
        if tokenizer.vocab_size > config.vocab_size:
            raise InvalidConfigError(
                f"The policy knows {config.vocab_size} tokens; the tokenizer has {tokenizer.vocab_size}. "
                f"Give the tokenizer that it was trained with."
            )
        prompt = TokenizePrompt(tokenizer, config.num_image_tokens, config.max_length, template, wrap)
        return cls(prompt, ResizeImage(config.image_size, resize), robot, statistics or OF_ROBOT[robot])

    def save(self, folder: str | Path, *, acts: bool = True) -> None:
        """Write ``processor.json``, ``statistics.json`` and the tokenizer into a checkpoint folder.

        Args:
            folder: of the checkpoint.
            acts: whether its policy acts; a vision-language model has no robot and no statistics yet.
        """
        prompt = self.prompt
        data = {
            **({"robot": self.robot} if acts else {}),
            "tokenizer": kind_of(prompt.tokenizer),
            "template": prompt.template,
            "wrap": prompt.wrap,
            "resize": self.resize.filter,
            **({"image_size": self.image_size} if self.image_size else {}),
        }
        write_whole(Path(folder) / FILE_NAME, (json.dumps(data, indent=2) + "\n").encode())
        if acts:
            self.statistics.save(folder)
        prompt.tokenizer.save(folder)

    @classmethod
    def load(
        cls,
        source: str | Path,
        config: VlaserConfig,
        *,
        robot: str | None = None,
        tokenizer: str | Path | None = None,
        statistics: str | Path | Statistics | None = None,
        template: str | None = None,
        wrap: str | None = None,
        resize: str | None = None,
    ) -> Processor:
        """The processor that belongs to a checkpoint; what is given here comes before what lies there.

        Args:
            source: checkpoint folder, or a file in a folder.
            config: the policy's.
            robot: see :meth:`build`.
            tokenizer: ``"bytes"``, ``"words"``, or the folder of a Qwen2 tokenizer; by default the checkpoint's own.
            statistics: a file in the layout of ``statistics.json``, or ``"bridge"`` or ``"fractal"``; by default the
                checkpoint's own, and for a file of the original's the robot's data set's, with a warning.
            template: a key of :data:`TEMPLATES` or a text; by default the checkpoint's own, else Vlaser's.
            wrap: see :class:`TokenizePrompt`; by default the checkpoint's own, else none.
            resize: a key of :data:`FILTERS`; by default the checkpoint's own, else the released policies'.

        Raises:
            MissingAssetError: if there is no tokenizer, or if a policy of ours comes without its statistics.
            InvalidConfigError: if something does not fit the policy.
        """
        folder = Path(source) if Path(source).is_dir() else Path(source).parent
        stored = {str(name): str(value) for name, value in dict(stored_files(source).get(FILE_NAME, {})).items()}
        if statistics is None:
            statistics = own_statistics(source) or _published_statistics(source, robot or config.robot)
        template = stored.get("template", "vlaser") if template is None else template
        if tokenizer is None:
            name = stored.get("tokenizer", "")
            tokenizer = name if name in BUILT_IN else folder
            if tokenizer not in BUILT_IN and not has_qwen_files(folder):
                raise MissingAssetError(
                    f"Weights come without their tokenizer, and there is none in {folder}. Copy the tokenizer files of "
                    f"OpenGVLab/InternVL3-2B (vocab.json, merges.txt, added_tokens.json) there; an agent also takes "
                    f"agent.tokenizer=FOLDER."
                )
        built = cls.build(
            config,
            load_tokenizer(tokenizer),
            robot=stored.get("robot") if robot is None else robot,
            statistics=statistics if isinstance(statistics, Statistics) else Statistics.load(statistics),
            template=TEMPLATES.get(template, template),
            wrap=stored.get("wrap", "{instruction}") if wrap is None else wrap,
            resize=stored.get("resize", "lanczos4") if resize is None else resize,
        )
        return replace(built, image_size=stored.get("image_size", ""))

    @property
    def transform(self) -> Compose:
        """The way in: observations -> pixels, input_ids, proprio."""
        return Compose(
            [
                self.resize,
                self.prompt,
                RobotProprio(self.robot),
                NormalizeProprio(self.statistics),
            ]
        )

    def inputs(self, observations: Data, device: torch.device | str = "cpu") -> Inputs:
        """Observations of N environments -> the policy's inputs; images travel to ``device`` as bytes."""
        return self.tensors(self.transform(observations), device)

    def tensors(self, data: Data, device: torch.device | str = "cpu") -> Inputs:
        """The result of :attr:`transform` as tensors."""
        return Inputs(
            pixel_values=normalize_pixels(torch.from_numpy(data["pixels"]).to(device)),
            input_ids=torch.from_numpy(data["input_ids"]),
            proprio=torch.from_numpy(data["proprio"]),
        )

    def arm_actions(self, actions: ArrayLike) -> Array:
        """``[..., 7]`` policy output -> translation (m), axis-angle (rad), predicted openness."""
        action = self.statistics.denormalize_action(np.asarray(actions, np.float64))
        return np.concatenate(
            [action[..., :3], rotations.axis_angle_from_euler(action[..., 3:6]), action[..., 6:]], axis=-1
        )

    def labels(self, arm_actions: ArrayLike) -> Array:
        """The way back, for training: what :meth:`arm_actions` gives -> policy output, the arm clipped to [-1, 1]."""
        action = np.asarray(arm_actions, np.float64)
        euler = rotations.euler_from_axis_angle(action[..., 3:6])
        return self.statistics.normalize_action(np.concatenate([action[..., :3], euler, action[..., 6:]], axis=-1))


def stored_files(source: str | Path) -> dict[str, Any]:
    """The content of a checkpoint's ``processor.json`` and ``statistics.json``, by name, for those that exist.

    Args:
        source: checkpoint folder, or a file, beside which they lie. What a ``.pt`` of ours holds itself comes first.

    Raises:
        MissingAssetError: if one is damaged.
    """
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    found = {}
    for file in (folder / FILE_NAME, folder / STATISTICS_FILE):
        if file.is_file():
            try:
                found[file.name] = json.loads(file.read_text(encoding="utf-8"))
            except ValueError as error:
                raise MissingAssetError(f"{file} should be JSON; reading it gave: {error}. Copy it again.") from error
    return {**found, **read_description(source).get("files", {})}


def own_statistics(source: str | Path) -> Statistics | None:
    """The statistics that a checkpoint brings along.

    Raises:
        MissingAssetError, InvalidConfigError: if they are damaged.
    """
    stored = stored_files(source).get(STATISTICS_FILE)
    return None if stored is None else Statistics.from_dict(stored, f"{STATISTICS_FILE} of {source}")


def _published_statistics(source: str | Path, robot: str | None) -> Statistics:
    """Statistics of the robot's published data set, for a checkpoint that brings none along."""
    if robot not in DATA_SET:
        raise UnknownNameError("robot", robot, DATA_SET)
    if is_ours(source):
        raise MissingAssetError(
            f"{source} is a policy without {STATISTICS_FILE}, and with other statistics than its own it would act "
            f"otherwise: copy the file from where it was trained, name the right ones (agent.statistics=FILE or "
            f"{DATA_SET[robot]}; for good, python -m vlaser_gym.convert source=... target=... statistics=FILE), or "
            f"give it the data's by algo=sft algo.statistics=data."
        )
    warnings.warn(
        f"{source} says nothing of its statistics and gets those of {DATA_SET[robot]}, by which the released policies "
        f"for {robot} were trained; statistics=FILE gives others, statistics={DATA_SET[robot]} says that it is meant.",
        stacklevel=3,
    )
    return OF_ROBOT[robot]


def normalize_pixels(pixels: torch.Tensor) -> torch.Tensor:
    """uint8 ``[N, S, S, 3]`` RGB -> float32 ``[N, 3, S, S]``, ImageNet-normalised, on the same device."""
    mean, std = _per_channel(IMAGE_MEAN, pixels.device), _per_channel(IMAGE_STD, pixels.device)
    return (pixels.permute(0, 3, 1, 2).float() * (1 / 255) - mean) / std


@functools.cache
def _per_channel(numbers: tuple[float, ...], device: torch.device) -> torch.Tensor:
    """``[3, 1, 1]``, brought to a device once: nothing may be copied there while a CUDA graph is recorded."""
    with torch.inference_mode(False):
        return torch.tensor(numbers, device=device).view(3, 1, 1)
