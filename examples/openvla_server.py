"""OpenVLA in the gym, without its code: how its tokens become actions, and the messages of its own server.

OpenVLA's model comes with code of its own, which this gym does not run. Either give a function that makes tokens,

    python -m vlaser_gym.serve agent._target_=examples.openvla_server.OpenVla agent.model=my_module:tokens \\
        agent.statistics=FILE

or let OpenVLA's own server (``vla-scripts/deploy.py``) run where its code is, and ask it:

    python -m vlaser_gym.eval agent._target_=examples.openvla_server.OpenVlaServer agent.url=http://127.0.0.1:8000

Facts: OpenVLA's ``prismatic/vla/action_tokenizer.py``, ``prismatic/extern/hf/modeling_prismatic.py`` and
``vla-scripts/deploy.py``. Of a vocabulary's last 256 tokens the last one is the lowest of 256 edges from -1 to 1; an
action lies in the middle of two edges.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlaser_gym.agents.base import Observations
from vlaser_gym.envs.address import Address
from vlaser_gym.errors import InvalidConfigError, RemoteError
from vlaser_gym.registry import import_string

Floats = NDArray[np.float64]
#: An image ``[224, 224, 3]`` and a prompt -> seven ids of tokens.
Model = Callable[[NDArray[np.uint8], str], Sequence[int]]

EDGES = np.linspace(-1.0, 1.0, 256)
MIDDLES = (EDGES[:-1] + EDGES[1:]) / 2
#: Llama's tokens; the model's table is padded to a multiple of 64, which the ids do not know of.
VOCABULARY = 32_000
#: The statistics by which actions of Bridge were normalised.
KEY = "bridge_orig"


def prompt_of(instruction: str) -> str:
    """The sentence that OpenVLA was trained with."""
    return f"In: What action should the robot take to {instruction.lower()}?\nOut:"


@dataclass(frozen=True)
class ActionDecoder:
    """Tokens -> metres, radians and a gripper of 1 (open) to 0.

    Attributes:
        low, high: first and 99th percentile of the training data's actions, ``[7]``.
        mask: which numbers were normalised by them; the gripper was not.
        vocabulary: number of tokens.
    """

    low: Floats
    high: Floats
    mask: NDArray[np.bool_]
    vocabulary: int = VOCABULARY

    @classmethod
    def load(cls, file: str | Path, key: str = KEY) -> ActionDecoder:
        """From ``dataset_statistics.json``, or the ``norm_stats`` of a ``config.json``.

        Raises:
            InvalidConfigError: if the file has no such key.
        """
        data = json.loads(Path(file).read_text())
        data = data.get("norm_stats", data)
        if key not in data:
            raise InvalidConfigError(f"{file} should hold statistics of {key!r}; it has {', '.join(data)}.")
        of = data[key]["action"]
        mask = np.array(of.get("mask", [True] * 6 + [False]))
        return cls(np.array(of["q01"], np.float64), np.array(of["q99"], np.float64), mask)

    def __call__(self, tokens: ArrayLike) -> Floats:
        """``[7]`` ids -> ``[7]`` numbers of an action; tokens that stand for no action count as the nearest that do."""
        place = np.clip(self.vocabulary - np.asarray(tokens, np.int64) - 1, 0, len(MIDDLES) - 1)
        normal = MIDDLES[place]
        return np.where(self.mask, (normal + 1) / 2 * (self.high - self.low) + self.low, normal)


class OpenVla:
    """Actions from a function that makes tokens.

    Args:
        model: import string of the function.
        statistics: file of the training data's, see :meth:`ActionDecoder.load`.
        key: whose statistics.
    """

    observes = ("image", "instruction")
    #: Images of 224 x 224, roll, pitch and yaw, a gripper of 1 open and 0 closed: converted by the gym.
    convention = "openvla"

    def __init__(self, model: str | Model, statistics: str, key: str = KEY) -> None:
        self.model: Model = import_string(model, "agent.model") if isinstance(model, str) else model
        self.decode = ActionDecoder.load(statistics, key)

    def reset(self, lanes: NDArray[np.int64], addresses: Sequence[Address]) -> None:
        """OpenVLA remembers nothing."""

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> Floats:
        """One action per environment, ``[N, 1, 7]``."""
        told = zip(observations["image"], observations["instruction"], strict=True)
        return np.stack([settled(self.decode(self.model(picture, prompt_of(text)))) for picture, text in told])[:, None]


class OpenVlaServer(OpenVla):
    """Actions from OpenVLA's own server, which makes prompts and decodes tokens itself.

    Args:
        url: of the server.
        key: by whose statistics it is to decode.
        timeout: seconds for an answer.
    """

    def __init__(self, url: str, key: str = KEY, timeout: float = 60.0) -> None:
        self.url, self.key, self.timeout = url.rstrip("/") + "/act", key, timeout

    def act(self, observations: Observations, lanes: NDArray[np.int64]) -> Floats:
        """See :class:`OpenVla`.

        Raises:
            RemoteError: if the server cannot be asked, or answers something else than seven numbers.
        """
        told = zip(observations["image"], observations["instruction"], strict=True)
        return np.stack([settled(self._ask(picture, text)) for picture, text in told])[:, None]

    def _ask(self, picture: NDArray[np.uint8], instruction: str) -> Floats:
        request = Request(self.url, question(picture, instruction, self.key), {"Content-Type": "application/json"})
        try:
            with urlopen(request, timeout=self.timeout) as reply:
                action = read_array(json.loads(reply.read()))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RemoteError(
                f"Expected an action from {self.url}; asking gave {type(error).__name__}: {error}."
            ) from error
        if action.shape != (7,):
            raise RemoteError(f"Expected 7 numbers from {self.url}; got shape {action.shape}.")
        return action


def settled(action: Floats) -> Floats:
    """The action with its gripper open (1) or closed (0), by the middle between: SimplerEnv's rule for OpenVLA."""
    return np.concatenate([action[:6], action[6:] > 0.5])


def question(picture: NDArray[np.uint8], instruction: str, key: str) -> bytes:
    """The body of a question to OpenVLA's server; arrays travel as the package ``json_numpy`` writes them."""
    return json.dumps({"image": array(picture), "instruction": instruction, "unnorm_key": key}).encode()


def array(values: NDArray[Any]) -> dict[str, Any]:
    """An array in ``json_numpy``'s words."""
    packed = base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
    return {"__numpy__": packed, "dtype": values.dtype.str, "shape": list(values.shape)}


def read_array(entry: Any) -> Floats:
    """An array in ``json_numpy``'s words, as text or as the object itself, or a plain list."""
    entry = json.loads(entry) if isinstance(entry, str) else entry
    if isinstance(entry, dict):
        entry = np.frombuffer(base64.b64decode(entry["__numpy__"]), entry["dtype"]).reshape(entry["shape"])
    return np.asarray(entry, np.float64)
