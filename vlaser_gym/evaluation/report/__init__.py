"""The report: one HTML file that shows a run, or two side by side, episode by episode."""

from vlaser_gym.evaluation.report.builder import find_videos, write_report
from vlaser_gym.evaluation.report.thumbnails import render_thumbnails

__all__ = ["find_videos", "render_thumbnails", "write_report"]
