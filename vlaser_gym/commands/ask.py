"""Ask a vision-language checkpoint: ``python -m vlaser_gym.ask image=a.png question='Where is the cup?'
checkpoint=DIR``; ``--help`` lists the keys.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from omegaconf import DictConfig
from PIL import Image, UnidentifiedImageError

from vlaser_gym.agents.vlaser.frequent_words import POINTING_PROMPT
from vlaser_gym.agents.vlaser.grounding import draw_answer, parse_boxes, parse_points
from vlaser_gym.cli import run, typed
from vlaser_gym.errors import InvalidConfigError, MissingAssetError
from vlaser_gym.settings.commands import AskSettings

_FREE_TEXT = ("question", "system")


def main(config: DictConfig) -> None:
    """Answer one question."""
    settings = typed(AskSettings, config)
    _check(settings)
    pictures = [_read(path) for path in _paths(settings.image)] or [_frame(settings)]
    answer = _answer(settings, pictures)
    print(answer)
    height, width = pictures[0].shape[:2]
    for x, y in parse_points(answer, width, height):
        print(f"Point: x {x}, y {y} (pixels)")
    for box in parse_boxes(answer, width, height):
        name = f" {box.label}" if box.label else ""
        print(f"Box{name}: left {box.left}, top {box.top}, right {box.right}, bottom {box.bottom} (pixels)")
    output = Path(settings.output or "answer.png")
    _save(output, draw_answer(pictures[0], settings.question, answer))
    print(f"Image: {output}")


def _check(settings: AskSettings) -> None:
    if settings.checkpoint is None:
        raise InvalidConfigError(
            "Asking needs a vision-language model; got no checkpoint. Give checkpoint=FOLDER with the files of "
            "OpenGVLab/Vlaser-2B or another InternVL3 model."
        )
    if bool(_paths(settings.image)) == bool(settings.run):
        raise InvalidConfigError("Give either image=FILE, or run=DIR episode=ADDRESS step=K; one of the two.")
    if settings.run and not settings.episode:
        raise InvalidConfigError(f"Which episode of {settings.run}? Give episode=task/layout or a longer address.")


def _answer(settings: AskSettings, pictures: Sequence[NDArray[np.uint8]]) -> str:
    # Imported here: it takes seconds, which --help and wrong settings need not wait for.
    from vlaser_gym.agents.vlaser.agent import choose_device, choose_dtype  # noqa: PLC0415
    from vlaser_gym.agents.vlaser.chat import SYSTEM_MESSAGE  # noqa: PLC0415
    from vlaser_gym.agents.vlaser.vlm import Vlm  # noqa: PLC0415

    device = choose_device(settings.device)
    dtype = choose_dtype(settings.dtype or ("bfloat16" if device.startswith("cuda") else "float32"))
    vlm = Vlm.from_folder(str(settings.checkpoint), device, dtype)
    return vlm.ask(
        pictures,
        f"{POINTING_PROMPT} {settings.question}" if settings.pointing else settings.question,
        system=SYSTEM_MESSAGE if settings.system is None else settings.system,
        max_tiles=settings.max_tiles,
        max_new_tokens=settings.max_new_tokens,
    )


def _paths(image: Any) -> list[str]:
    if image is None:
        return []
    return [image] if isinstance(image, str) else [str(path) for path in image]


def _read(path: str) -> NDArray[np.uint8]:
    try:
        with Image.open(path) as picture:
            return np.asarray(picture.convert("RGB"))
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise MissingAssetError(f"{path} should be an image such as PNG or JPEG; reading it gave: {error}.") from error


def _frame(settings: AskSettings) -> NDArray[np.uint8]:
    """The image of a stored episode's step."""
    from vlaser_gym.envs.rendering import SceneRenderer, drawn_states, shown_look  # noqa: PLC0415
    from vlaser_gym.evaluation.store import address_of, read_states  # noqa: PLC0415
    from vlaser_gym.evaluation.video import select_episodes  # noqa: PLC0415

    found = select_episodes(str(settings.run), [str(settings.episode)])
    if len(found) != 1:
        some = ", ".join(str(address_of(record)) for record in found[:5])
        raise InvalidConfigError(
            f"episode={settings.episode} should name one episode; it names {len(found)}{': ' + some if some else ''}."
        )
    record, states = found[0], read_states(str(settings.run), found[0])
    count = len(states["qpos"])
    if not -count <= settings.step < count:
        raise InvalidConfigError(f"The episode has steps 0 to {count - 1} (or -1 for the last); got {settings.step}.")
    row = {k: v[settings.step] for k, v in drawn_states(states).items()}
    renderer = SceneRenderer(settings.look or shown_look(str(record["look"])))
    try:
        return renderer.frame(record["task"], record["variant"], row)
    finally:
        renderer.close()


def _save(output: Path, picture: NDArray[np.uint8]) -> None:
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture).save(output)
    except (OSError, ValueError) as error:
        raise InvalidConfigError(
            f"output={output} should be an image file that can be written, such as answer.png: {error}."
        ) from error


def quoted(arguments: Sequence[str]) -> list[str]:
    """Free text of the command line in quotes, so that its commas, brackets and apostrophes are text."""
    out = []
    for argument in arguments:
        key, equals, text = argument.partition("=")
        is_quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "'\""
        if equals and key in _FREE_TEXT and not is_quoted and text != "null":
            text = text.replace("\\", "\\\\").replace("'", "\\'")
            argument = f"{key}='{text}'"  # noqa: PLW2901
        out.append(argument)
    return out


def command() -> None:
    """``python -m vlaser_gym.ask``."""
    run("ask", main, quoted(sys.argv[1:]))
