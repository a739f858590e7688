"""Memory of this process, the peak since a moment of one's choice, and that of its children."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

__all__ = ["ChildrenPeak", "peak_mib", "reset_peak", "resident_mib", "watched_children"]

_STATUS = Path("/proc/self/status")
_INTERVAL = 0.1  # s


class ChildrenPeak:
    """The most memory that the processes below this one had together when they were looked at.

    Pages that two processes share count twice.
    """

    def __init__(self) -> None:
        self.mib = 0.0

    def look(self) -> None:
        total = 0
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                total += child.memory_info().rss
        self.mib = max(self.mib, total / (1 << 20))


@contextmanager
def watched_children() -> Iterator[ChildrenPeak]:
    """Look at them ten times a second inside."""
    peak, ended = ChildrenPeak(), threading.Event()

    def watch() -> None:
        while not ended.wait(_INTERVAL):
            peak.look()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield peak
    finally:
        ended.set()
        thread.join()


def resident_mib() -> float:
    """Memory that is resident now; where the system does not tell it, the peak so far."""
    return _status("VmRSS") or _maximum()


def reset_peak() -> bool:
    """Begin to count the peak anew. False where the system has no such thing: `peak_mib` is then
    that of the whole life of the process, loading of model and data included."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
        return True
    return False


def peak_mib() -> float:
    """The most memory that was resident since `reset_peak`, in MiB."""
    return _status("VmHWM") or _maximum()


def _status(field: str) -> float | None:
    with suppress(OSError):
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) / 1024  # kB
    return None


def _maximum() -> float:
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / (1 << 20 if sys.platform == "darwin" else 1 << 10)
