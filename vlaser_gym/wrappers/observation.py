"""Wrappers that change observations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import cv2
import numpy as np
from gymnasium import spaces
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from vlaser_gym.envs.robots import is_image
from vlaser_gym.errors import InvalidConfigError, UnknownNameError
from vlaser_gym.wrappers.base import Observation, ObservationWrapper

#: Ids of :func:`byte_tokens`: 0 pads, 1 to 256 are the bytes 0 to 255.
BYTE_VOCABULARY = 257


class SelectObservation(ObservationWrapper):
    """Keep some of the observations, in the given order.

    What the environment's own ``observe`` leaves out is not even computed: prefer that where the rest is not needed.

    Raises:
        UnknownNameError: for a name that the environment does not observe.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = SceneVectorEnv("widowx_stack_cube", observe=("proprio", "instruction", "state"))
        >>> env = SelectObservation(env, ("state", "proprio"))
        >>> observation, _ = env.reset(seed=0)
        >>> {name: values.shape for name, values in observation.items()}
        {'state': (1, 26), 'proprio': (1, 8)}
        >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], names: Sequence[str]) -> None:
        super().__init__(env)
        self.names = tuple(names)
        space = _dict_space(env)
        for name in self.names:
            if name not in space.spaces:
                raise UnknownNameError("observation of this environment", name, space.spaces)
        self._declare(spaces.Dict([(name, space[name]) for name in self.names]))

    def transform(self, observation: Observation) -> Observation:
        """Keep the chosen entries of the observation."""
        return {name: observation[name] for name in self.names}


class ResizeImage(ObservationWrapper):
    """Images of another size, by OpenCV's area averaging (``INTER_AREA``), which does not alias when it shrinks.

    The Vlaser policy resizes by itself, as its training data were; give it the full image.

    Args:
        env: environments that observe ``image``, ``wrist_image`` or the like; all of them get this size.
        size: height and width, pixels.
        channels_first: ``[3, h, w]`` instead of ``[h, w, 3]``.

    Raises:
        UnknownNameError: if the environment observes no image.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = ResizeImage(SceneVectorEnv("widowx_stack_cube", observe=("image",)), (96, 128))
        >>> env.single_observation_space["image"].shape
        (96, 128, 3)
        >>> env.close()
    """

    def __init__(self, env: VectorEnv[Any, Any, Any], size: tuple[int, int], channels_first: bool = False) -> None:
        super().__init__(env)
        if len(size) != 2 or min(size) < 1:
            raise InvalidConfigError(f"ResizeImage needs a height and a width of at least 1 pixel; got {size}.")
        self.size, self.channels_first = tuple(int(n) for n in size), channels_first
        shape = (3, *self.size) if channels_first else (*self.size, 3)
        self.names = tuple(filter(is_image, _dict_space(env).spaces)) or ("image",)
        space = spaces.Box(0, 255, shape, np.uint8)
        self._declare(_replaced(env, dict.fromkeys(self.names, space)))

    def transform(self, observation: Observation) -> Observation:
        """Resize every image."""
        return {**observation, **{name: self._resized(observation[name]) for name in self.names}}

    def _resized(self, images: NDArray[np.uint8]) -> NDArray[Any]:
        height, width = self.size
        batch = np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in images])
        return np.ascontiguousarray(np.moveaxis(batch, -1, 1)) if self.channels_first else batch


class TokenizeInstruction(ObservationWrapper):
    """The instruction as token ids, ``int64 [length]``, zeros behind the end.

    Args:
        env: environments that observe ``instruction``.
        length: ids per instruction.
        tokenizer: text to ids; by default the UTF-8 bytes plus one.
        vocabulary: ids are below this.

    Raises:
        UnknownNameError: if the environment does not observe ``instruction``.
        InvalidConfigError: for an instruction that does not fit.

    Example:
        >>> from vlaser_gym.envs.vector import SceneVectorEnv
        >>> env = SceneVectorEnv("widowx_carrot_on_plate", observe=("instruction",))
        >>> env = TokenizeInstruction(env, length=24)
        >>> observation, _ = env.reset(seed=0)
        >>> bytes(i - 1 for i in observation["instruction"][0] if i).decode()
        'put carrot on plate'
        >>> env.close()
    """

    def __init__(
        self,
        env: VectorEnv[Any, Any, Any],
        length: int = 64,
        tokenizer: Callable[[str], Sequence[int]] | None = None,
        vocabulary: int = BYTE_VOCABULARY,
    ) -> None:
        super().__init__(env)
        self.length, self.vocabulary = length, vocabulary
        self.tokenizer = byte_tokens if tokenizer is None else tokenizer
        self._known: dict[str, NDArray[np.int64]] = {}
        self._declare(_replaced(env, {"instruction": spaces.Box(0, vocabulary - 1, (length,), np.int64)}))

    def transform(self, observation: Observation) -> Observation:
        """Look every instruction up, or encode it when it is new."""
        return {**observation, "instruction": np.stack([self._ids(text) for text in observation["instruction"]])}

    def _ids(self, text: str) -> NDArray[np.int64]:
        if text not in self._known:
            ids = np.asarray(self.tokenizer(text), np.int64)
            if len(ids) > self.length or (ids < 0).any() or (ids >= self.vocabulary).any():
                raise InvalidConfigError(
                    f"Expected at most {self.length} ids below {self.vocabulary}; {text!r} has {len(ids)}, the largest "
                    f"{ids.max()}: raise length or vocabulary."
                )
            self._known[text] = np.pad(ids, (0, self.length - len(ids)))
        return self._known[text]


def byte_tokens(text: str) -> list[int]:
    """UTF-8 bytes plus one, so that 0 is free for padding.

    Example:
        >>> byte_tokens("ab")
        [98, 99]
    """
    return [byte + 1 for byte in text.encode()]


def _dict_space(env: VectorEnv[Any, Any, Any]) -> spaces.Dict:
    space = env.single_observation_space
    assert isinstance(space, spaces.Dict)
    return space


def _replaced(env: VectorEnv[Any, Any, Any], new: Mapping[str, spaces.Space[Any]]) -> spaces.Dict:
    """The environment's observation space with other spaces under existing names."""
    old = _dict_space(env)
    for name in new:
        if name not in old.spaces:
            raise UnknownNameError("observation of this environment", name, old.spaces)
    return spaces.Dict([(name, new.get(name, space)) for name, space in old.spaces.items()])
