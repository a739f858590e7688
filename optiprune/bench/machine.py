"""What a measurement ran on: written beside every result."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

__all__ = ["describe"]

_PACKAGES = ("optiprune", "torch", "numpy", "numba", "scipy", "highspy", "dimod")


def describe(*more: str, at: Path | None = None) -> dict[str, str]:
    """Processor, cores, Python, package versions and the git revision.

    Parameters
    ----------
    more : further packages whose versions matter
    at : a folder of the repository whose revision is asked for; by default the present folder
    """
    return {
        "machine": f"{_processor()}, {_cores()} cores usable",
        "python": platform.python_version(),
        "versions": ", ".join(f"{p} {_version(p)}" for p in (*_PACKAGES, *more)),
        "revision": _revision(at),
    }


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _processor() -> str:
    try:
        with open("/proc/cpuinfo") as f:
            for line in f:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _revision(at: Path | None) -> str:
    command = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=at)
    except OSError:  # no git
        return "unknown"
    return done.stdout.strip() or "unknown"
