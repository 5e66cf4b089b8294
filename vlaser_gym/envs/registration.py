"""Gymnasium ids: ``vlaser_gym/<SimplerEnv task name>`` for every task."""

from __future__ import annotations


def register_environments() -> None:
    """Register all tasks with Gymnasium. Calling it again changes nothing."""
