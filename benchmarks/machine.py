"""What a measurement ran on: written beside every result."""

from __future__ import annotations

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version

__all__ = ["describe"]

_PACKAGES = ("optiprune", "torch", "numpy", "numba", "scipy", "highspy", "dimod")


def describe() -> dict[str, str]:
    """Processor, cores, Python, package versions and the revision of this repository."""
    return {
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores usable",
        "python": platform.python_version(),
        "versions": ", ".join(f"{p} {_version(p)}" for p in _PACKAGES),
        "revision": _revision(),
    }


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


def _revision() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "unknown"
