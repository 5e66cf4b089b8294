"""Small images of how episodes ended."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from PIL import Image

from vlaser_gym.envs.address import Address
from vlaser_gym.envs.rendering import SceneRenderer, drawn_states, shown_look
from vlaser_gym.evaluation.begun import placement_of
from vlaser_gym.evaluation.explanations import draw_explanation
from vlaser_gym.evaluation.store import Record, address_of, read_states

_BATCH = 16
_SIZE = (208, 156)  # px


def render_thumbnails(run: str | Path, records: Iterable[Record], processes: int | None = 1) -> dict[Address, bytes]:
    """JPEG images of the last state of episodes, by address; episodes without stored states have none.

    Args:
        run: the run directory.
        records: which episodes.
        processes: that render; ``None`` for one per core.

    Raises:
        RenderingUnavailableError: if no OpenGL driver can make images here.
        StorageError: if states are damaged.
    """
    stored = [record for record in records if record["states"] is not None]
    if not stored:
        return {}
    renderer = SceneRenderer(shown_look(str(stored[0]["look"])), _BATCH, processes)
    try:
        return dict(_render(renderer, Path(run), stored))
    finally:
        renderer.close()


def _render(renderer: SceneRenderer, run: Path, records: list[Record]) -> Iterable[tuple[Address, bytes]]:
    for (task, variant, bodies), group in groupby(records, _scene):
        mine = list(group)
        for begin in range(0, len(mine), _BATCH):
            batch = mine[begin : begin + _BATCH]
            states = [read_states(run, record) for record in batch]
            last = [{name: values[-1] for name, values in drawn_states(of).items()} for of in states]
            for record, of, picture in zip(batch, states, renderer.frames(task, variant, last, **bodies), strict=True):
                shown = draw_explanation(picture, task, of, len(of["qpos"]) - 1)
                buffer = io.BytesIO()
                Image.fromarray(shown).resize(_SIZE, Image.Resampling.LANCZOS).save(buffer, "JPEG", quality=72)
                yield address_of(record), buffer.getvalue()


def _scene(record: Record) -> tuple[str, str, Mapping[str, Any]]:
    """The scene that the images of one batch share: task, variant, and changed objects."""
    bodies = placement_of(record).bodies if "perturb" in record else ()
    return record["task"], record["variant"], {"bodies": bodies} if bodies else {}
