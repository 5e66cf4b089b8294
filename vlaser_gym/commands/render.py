"""Videos of stored episodes: ``python -m vlaser_gym.render run=DIR episodes=failures``; ``--help`` lists the keys."""

from __future__ import annotations

from omegaconf import DictConfig

from vlaser_gym.cli import run, typed, words
from vlaser_gym.evaluation.video import render_videos, select_episodes, video_folder
from vlaser_gym.settings.commands import RenderSettings


def main(config: DictConfig) -> None:
    """Render the chosen episodes."""
    settings = typed(RenderSettings, config)
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
