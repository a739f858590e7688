"""Memory of this process, and the peak since a moment of one's choice."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

__all__ = ["peak_mib", "reset_peak", "resident_mib"]

_STATUS = Path("/proc/self/status")


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
