"""Videos of stored episodes: ``python -m vlaser_gym.render run=DIR episodes=failures``; ``--help`` lists the keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig

from vlaser_gym.cli import run, typed, words
from vlaser_gym.errors import InvalidConfigError
from vlaser_gym.evaluation.video import render_videos, select_episodes, video_folder
from vlaser_gym.settings.checks import check_least


@dataclass
class RenderSettings:
    """What ``configs/render.yaml`` holds; the comments there say what each means."""

    run: str
    episodes: Any
    output: str | None
    fps: float | None
    look: str | None
    processes: int | None
    assets: str | None
    camera: str


def main(config: DictConfig) -> None:
    """Render the chosen episodes."""
    settings = typed(RenderSettings, config)
    if settings.fps is not None and not 0 < settings.fps <= 240:
        raise InvalidConfigError(f"fps must lie above 0 and up to 240, or be null; got {settings.fps}.")
    check_least(settings, or_null=True, processes=1)
    records = select_episodes(settings.run, words(settings.episodes))
    folder = settings.output or video_folder(settings.run)
    print(f"{settings.run}: {len(records)} episodes chosen")
    videos = render_videos(
        settings.run,
        records,
        folder,
        fps=settings.fps,
        look=settings.look,
        processes=settings.processes,
        assets=settings.assets,
        camera=settings.camera,
    )
    for path in videos:
        print(f"Video: {path}")


def command() -> None:
    """``python -m vlaser_gym.render``."""
    run("render", main)
