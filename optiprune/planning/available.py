"""Memory that this process could still get."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import psutil
import torch

__all__ = ["available_bytes"]

# limit, use, and statistics of a container's control group, version 2 and 1
_GROUPS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)
# counted as used, and given up where memory is asked for
_CACHES = ("active_file", "inactive_file", "slab_reclaimable")


def available_bytes(device: torch.device | None = None, root: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory and what the system gives up for it, within the container's limit if it has one.

    Parameters
    ----------
    device : of which; None: the CPU
    root : where Linux shows control groups
    """
    if device is not None and device.type == "cuda":
        cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + cached)
    free = int(psutil.virtual_memory().available)
    for limit, used, stat in _GROUPS:
        with suppress(OSError, ValueError):
            most = int((root / limit).read_text())  # "max" is none
            held = int((root / used).read_text())
            lines = dict(line.split() for line in (root / stat).read_text().splitlines())
            cached = sum(int(lines.get(name, 0)) for name in _CACHES)
            return max(0, min(free, most - held + cached))
    return free
