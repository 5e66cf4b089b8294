"""The number of worker processes of the original that this machine's memory has room for."""

from __future__ import annotations

from pathlib import Path

#: Memory of a worker (bytes) that renders, and of one that was built to render nothing. Measured of SimplerEnv 4ab7178
#: with software Vulkan.
RENDERING, BLIND = 1.05e9, 0.4e9
_SYSTEM, _GROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def lanes_that_fit(pictures: bool, system: Path = _SYSTEM, group: Path = _GROUP) -> int:
    """Workers that fit into the memory that is free now; at least one, and a great many where nobody says.

    Args:
        pictures: they render.
        system: the kernel's ``meminfo``.
        group: folder of the control group, whose limit counts too.
    """
    return max(1, int(free_memory(system, group) / (RENDERING if pictures else BLIND)))


def free_memory(system: Path = _SYSTEM, group: Path = _GROUP) -> float:
    """Bytes that new processes can have, by the kernel and by the control group; 1e15 where neither says."""
    free = 1e15
    try:
        lines = dict(line.split(":", 1) for line in system.read_text().splitlines())
        free = 1024.0 * int(lines["MemAvailable"].split()[0])
    except (OSError, KeyError, ValueError):
        pass
    try:
        limit, used = (int((group / f"memory.{name}").read_text()) for name in ("max", "current"))
        cache = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
        # Files that are kept in memory give way.
        return min(free, limit - used + int(cache.get("inactive_file", 0)))
    except (OSError, ValueError):
        return free
