"""CPU time of this process and of all that it has started, also of what lives on."""

from __future__ import annotations

import contextlib
import glob
import os
import sys
import time

__all__ = ["cpu_seconds"]


def cpu_seconds() -> float:
    """CPU time of this process, all its threads, and its children and theirs.

    Children that live on count on Linux alone, by the clocks of their processes; elsewhere a child
    counts when it has ended.
    """
    t = os.times()
    living = sum(map(_seconds_of, _living_descendants()))
    return time.process_time() + t.children_user + t.children_system + living


def _living_descendants() -> list[int]:
    if sys.platform != "linux":
        return []
    found: list[int] = []
    waiting = ["self"]
    while waiting:
        # each thread's own: whichever has started them
        for listed in glob.glob(f"/proc/{waiting.pop()}/task/*/children"):
            with contextlib.suppress(OSError), open(listed) as f:
                children = f.read().split()
                found += map(int, children)
                waiting += children
    return found


def _seconds_of(pid: int) -> float:
    """CPU time of another process and of its children that have ended, 0 once it has ended."""
    try:
        # how Linux numbers these clocks, see clock_getcpuclockid in glibc
        own = time.clock_gettime(~pid << 3 | 2)
        with open(f"/proc/{pid}/stat") as f:
            # behind the name, which may hold anything; cutime and cstime of proc(5)
            ended = f.read().rpartition(")")[2].split()[13:15]
    except OSError:
        return 0.0
    return own + sum(map(int, ended)) / os.sysconf("SC_CLK_TCK")
