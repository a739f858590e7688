"""Memory that this process could still get."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

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


def available_bytes(device: torch.device | None = None, root: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory and what the system gives up for it, within the container's limit if it has one.

    Parameters
    ----------
    device : of which; None: the CPU
    root : where Linux shows control groups
    """
    if device is not None and device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = int(psutil.virtual_memory().available)
    for limit, used, stat, cache in _GROUPS:
        with suppress(OSError, ValueError):
            most = int((root / limit).read_text())  # "max" is none
            held = int((root / used).read_text())
            lines = dict(line.split() for line in (root / stat).read_text().splitlines())
            return max(0, min(free, most - held + int(lines.get(cache, 0))))
    return free
