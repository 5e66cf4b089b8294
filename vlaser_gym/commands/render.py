"""Videos of stored episodes: ``python -m vlaser_gym.render run=DIR episodes=failures``; ``--help`` lists the keys."""

from __future__ import annotations

from omegaconf import DictConfig

from vlaser_gym.cli import run, typed, words
from vlaser_gym.envs.rendering import free_view
from vlaser_gym.evaluation.video import render_videos, select_episodes, video_folder
from vlaser_gym.settings.commands import RenderSettings
from vlaser_gym.settings.fields import check_unread


def main(config: DictConfig) -> None:
    """Render the chosen episodes."""
    settings = typed(RenderSettings, config)
    if "free" not in words(settings.camera):
        check_unread(settings, ("azimuth", "elevation", "distance"), f"camera={','.join(words(settings.camera))}")
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
        camera=[_placed(name, settings) for name in words(settings.camera)],
    )
    for path in videos:
        print(f"Video: {path}")


def _placed(camera: str, settings: RenderSettings) -> str:
    """A camera's name; the free one with its place."""
    if camera != "free":
        return camera
    return free_view(settings.azimuth, settings.elevation, settings.distance)


def command() -> None:
    """``python -m vlaser_gym.render``."""
    run("render", main)
