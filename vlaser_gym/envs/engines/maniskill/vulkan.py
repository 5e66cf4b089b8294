"""SAPIEN draws with Vulkan: on a GPU where there is one, else on the processor with Mesa's driver."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from vlaser_gym.errors import RenderingUnavailableError

_BACKPORTS = (
    "as root: sed '/^$/q; s/^Suites:.*/Suites: {suite}/' /etc/apt/sources.list.d/debian.sources "
    "> /etc/apt/sources.list.d/backports.sources && apt-get update && "
    "apt-get install -y -t {suite} mesa-vulkan-drivers libvulkan1"
)
_DISABLED = "SAPIEN_DISABLE_RAY_TRACING"


def render_system() -> Any:
    """SAPIEN's renderer.

    Raises:
        RenderingUnavailableError: if no Vulkan driver will do; it says what to install.
    """
    import sapien  # noqa: PLC0415  (the remedy can be told without it)

    try:
        return sapien.render.RenderSystem(_device(sapien))
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise RenderingUnavailableError(
            f"No images can be made with SAPIEN here ({reason}). {remedy()}, or use observations without images "
            "and video=0."
        ) from error


def _device(sapien: Any) -> Any:
    try:
        return sapien.Device("cuda")
    except RuntimeError:
        return sapien.Device("cpu")


def remedy(os_release: Path = Path("/etc/os-release")) -> str:
    """The remedy for a missing driver: SAPIEN accepts Mesa from version 25 on, with ray tracing announced."""
    if os.environ.get(_DISABLED):
        return f"Unset {_DISABLED}: SAPIEN takes a software driver only if ray tracing is not disabled"
    text = os_release.read_text() if os_release.is_file() else ""
    settings = dict(line.split("=", 1) for line in text.splitlines() if "=" in line)
    if settings.get("ID") == "debian" and settings.get("VERSION_CODENAME", "") == "bookworm":
        return f"Install Mesa's Vulkan driver from Debian's backports, {_BACKPORTS.format(suite='bookworm-backports')}"
    return "Install Mesa's Vulkan driver, version 25 or later (packages mesa-vulkan-drivers and libvulkan1)"
