"""Memory that this process could still get."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil

__all__ = ["available_bytes"]

# limit and use of a container's control group, version 2 and 1
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def available_bytes(root: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory and what the system gives up for it, within the container's limit if it has one.

    Parameters
    ----------
    root : where Linux shows control groups
    """
    free = int(psutil.virtual_memory().available)
    for limit, used, stat, cache in _GROUPS:
        with suppress(OSError, ValueError):
            most = int((root / limit).read_text())  # "max" is none
            held = int((root / used).read_text())
            lines = dict(line.split() for line in (root / stat).read_text().splitlines())
            return max(0, min(free, most - held + int(lines.get(cache, 0))))
    return free
