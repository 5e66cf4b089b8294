"""Models that answer: a local vision-language model, or a server that speaks the OpenAI chat API."""

from __future__ import annotations

import base64
import json
import urllib.error
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vlaser_gym.agents.vlaser.agent import choose_device, choose_dtype
from vlaser_gym.agents.vlaser.answering import AnsweringPolicy
from vlaser_gym.agents.vlaser.chat import SYSTEM_MESSAGE, Reply, Request
from vlaser_gym.agents.vlaser.checkpoint import is_ours
from vlaser_gym.agents.vlaser.shipped import SHIPPED_NAMES
from vlaser_gym.agents.wire import one_line, printable
from vlaser_gym.envs.assets.transfer import is_web_address
from vlaser_gym.errors import InvalidConfigError, MissingAssetError, RemoteError
from vlaser_gym.evaluation.encoding import encode_image
from vlaser_gym.reasoning.folder import picture_lines
from vlaser_gym.settings.commands import ReasonSettings
from vlaser_gym.storage.hub import local_folder

if TYPE_CHECKING:
    from vlaser_gym.agents.vlaser.vlm import Vlm

#: Bytes that a server's answer may have: far more than an answer of some thousand tokens.
_LONGEST_ANSWER = 4_000_000


class Answerer(Protocol):
    """Answers questions.

    Attributes:
        name: what a run calls it.
    """

    name: str

    def replies(self, requests: Sequence[Request]) -> list[Reply]:
        """An answer to each question."""


def make_answerer(settings: ReasonSettings) -> Answerer:
    """The model of ``checkpoint=``, or the server of ``url=``.

    Raises:
        InvalidConfigError: if both are given, or none.
        MissingAssetError: if the checkpoint is none of a vision-language model.
        RemoteError: if the server does not answer.
    """
    if (settings.checkpoint is None) == (settings.url is None):
        raise InvalidConfigError(
            "Give either checkpoint=FOLDER (or a name on the hub) or url=http://HOST:PORT/v1; one of the two."
        )
    return ServerModel(settings) if settings.url is not None else LocalModel(settings)


class LocalModel:
    """A vision-language model in this process, or a policy with a language head."""

    def __init__(self, settings: ReasonSettings) -> None:
        device = choose_device(settings.device)
        dtype = choose_dtype(settings.dtype or ("bfloat16" if device.startswith("cuda") else "float32"))
        self.name, self._settings = str(settings.checkpoint), settings
        if self.name in SHIPPED_NAMES or is_ours(self.name):
            self._model: AnsweringPolicy | Vlm = AnsweringPolicy.load(self.name, device, dtype)
        else:
            folder = vlm_folder(self.name)
            if (folder / "processor.json").is_file() and (folder / "statistics.json").is_file():
                raise InvalidConfigError(
                    f"{folder} is a policy without a language head: it acts and cannot answer. Give the "
                    "vision-language model that it was trained from."
                )
            # Imported here: the import takes seconds, and policies do without it.
            from vlaser_gym.agents.vlaser.vlm import Vlm  # noqa: PLC0415

            self._model = Vlm.from_folder(folder, device, dtype)

    def replies(self, requests: Sequence[Request]) -> list[Reply]:
        """See :class:`Answerer`; all at once."""
        settings = self._settings
        return self._model.replies(
            requests,
            system=SYSTEM_MESSAGE if settings.system is None else settings.system,
            max_tiles=settings.max_tiles,
            max_new_tokens=settings.max_new_tokens,
        )


def vlm_folder(name: str) -> Path:
    """A folder itself, or the files of a name on the Hugging Face hub.

    Raises:
        MissingAssetError: if it is neither.
    """
    folder = local_folder(name, "checkpoint")
    if not folder.is_dir():
        raise MissingAssetError(
            f"checkpoint={name} should be the folder of a vision-language model or a name on the Hugging Face hub such "
            "as OpenGVLab/Vlaser-2B; it is neither."
        )
    return folder


class ServerModel:
    """A server that speaks the OpenAI chat API, as vLLM, SGLang and LMDeploy do."""

    def __init__(self, settings: ReasonSettings) -> None:
        self._settings, self._url = settings, str(settings.url).rstrip("/")
        if not is_web_address(self._url):
            raise InvalidConfigError(f"url should be a server's, such as http://127.0.0.1:8000/v1; got {self._url!r}.")
        self.name = settings.model or self._first_model()

    def _first_model(self) -> str:
        try:
            return printable(str(self._call("/models")["data"][0]["id"]))
        except (KeyError, IndexError, TypeError) as error:
            raise RemoteError(f"{self._url}/models lists no model: give model=NAME.") from error

    def replies(self, requests: Sequence[Request]) -> list[Reply]:
        """See :class:`Answerer`; the server gets all at the same time."""
        with ThreadPoolExecutor(max(1, len(requests))) as pool:
            return list(pool.map(self._reply, requests))

    def _reply(self, request: Request) -> Reply:
        settings = self._settings
        system = [] if settings.system is None else [{"role": "system", "content": settings.system}]
        body = {
            "model": self.name,
            "messages": [*system, {"role": "user", "content": _content(request)}],
            "max_tokens": settings.max_new_tokens,
            "temperature": 0.0,
        }
        answer = self._call("/chat/completions", body)
        try:
            choice = answer["choices"][0]
            return Reply(str(choice["message"]["content"] or "").strip(), choice.get("finish_reason") == "length")
        except (KeyError, IndexError, TypeError) as error:
            raise RemoteError(
                f"{self._url} should answer as the OpenAI chat API does, with choices[0].message.content; got "
                f"{json.dumps(answer)[:200]}."
            ) from error

    def _call(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        call = urllib.request.Request(self._url + path, data, headers)
        try:
            with urllib.request.urlopen(call, timeout=self._settings.timeout) as response:
                received = response.read(_LONGEST_ANSWER + 1)
            if len(received) > _LONGEST_ANSWER:
                raise ValueError(f"more than {_LONGEST_ANSWER / 1e6:g} MB")
            found: Any = json.loads(received)
            if not isinstance(found, dict):
                raise ValueError(f"a {type(found).__name__} where an object should be")
        except urllib.error.HTTPError as error:
            said = printable(" ".join(error.read(300).decode(errors="replace").split()))
            raise RemoteError(f"{self._url}{path} refused with {error.code}: {said}") from error
        except (OSError, ValueError, RecursionError, HTTPException) as error:
            raise RemoteError(
                f"{self._url}{path} should be a server that speaks the OpenAI chat API; calling it gave: "
                f"{one_line(error) or type(error).__name__}. "
                "Start it, or give another url=; answers that are stored stay."
            ) from error
        return found


def _content(request: Request) -> list[dict[str, Any]]:
    """A message's content: the images as PNG, each after its number where there are several, then the question."""
    parts: list[dict[str, Any]] = []
    for number, image in enumerate(request.images, 1):
        if len(request.images) > 1:
            parts.append({"type": "text", "text": f"Image-{number}:"})
        url = "data:image/png;base64," + base64.b64encode(encode_image(image)).decode()
        parts.append({"type": "image_url", "image_url": {"url": url}})
    text = request.question.removeprefix(picture_lines(len(request.images))) if request.images else request.question
    return [*parts, {"type": "text", "text": text}]
