"""Which device a run is on, and how much fits there."""

from __future__ import annotations

import re
from importlib.util import find_spec
from typing import TYPE_CHECKING

from optiprune.solvers.errors import BackendMissingError, SolverError, SolverOptionError

if TYPE_CHECKING:
    import torch

__all__ = ["available_bytes", "check_device", "refuse_size", "resolve_device", "wait_for"]

_NAMES = re.compile(r"auto|cpu|cuda(:\d+)?")
# share of the free memory that a batch may take: allocators round up, and others use it as well
_SHARE = 0.5
# bytes on a CPU whose free memory is not known: no batch is near it, a mistake may be
_UNKNOWN = 8 << 30


def check_device(device: object) -> None:
    """Raise `SolverOptionError` unless it reads as a device; whether it exists is seen later."""
    if not isinstance(device, str) or not _NAMES.fullmatch(device):
        raise SolverOptionError(f"device must be 'auto', 'cpu', 'cuda' or 'cuda:N', got {device!r}")


def resolve_device(name: str) -> torch.device:
    """The device behind a name; ``"auto"`` is the first CUDA device, or the CPU without one.

    Raises
    ------
    BackendMissingError
        Without torch, or if CUDA is asked for and torch has none.
    SolverOptionError
        If there is no CUDA device of that number.
    """
    if find_spec("torch") is None:
        raise BackendMissingError(
            "solver 'torch' needs the module 'torch', which is not installed; install it with: "
            "pip install torch (or use 'annealing', which needs no torch)"
        )
    try:
        import torch
    except (ImportError, OSError) as e:
        raise BackendMissingError(
            f"solver 'torch' needs the module 'torch', which cannot be imported ({e}); "
            "install it anew with: pip install --force-reinstall torch"
        ) from e
    cuda = torch.cuda.is_available()
    if name == "cpu" or (name == "auto" and not cuda):
        return torch.device("cpu")
    if not cuda:
        why = "was built without CUDA" if torch.version.cuda is None else "sees no CUDA device"
        raise BackendMissingError(
            f"device={name!r} was asked for, but torch {torch.__version__} {why}; use "
            "device='cpu' (or 'auto'), or install a CUDA build of torch: "
            "https://pytorch.org/get-started/locally"
        )
    count = torch.cuda.device_count()
    number = int(name.partition(":")[2] or 0)
    if number >= count:
        there = ", ".join(f"'cuda:{i}'" for i in range(count))
        raise SolverOptionError(f"device={name!r} does not exist; there is {there} (or 'cpu')")
    return torch.device("cuda", number)


def available_bytes(device: torch.device) -> int:
    """Memory that a batch may take on the device now, in bytes."""
    if device.type == "cuda":
        import torch

        free, _ = torch.cuda.mem_get_info(device)
        # what the caching allocator holds without using it counts as free
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(_SHARE * free)
    try:
        # caches that the system would give up count as free
        with open("/proc/meminfo", encoding="ascii") as f:
            sizes = dict(line.split(":", 1) for line in f)
        return int(_SHARE * 1024 * int(sizes["MemAvailable"].split()[0]))
    except (OSError, KeyError, ValueError):  # another system
        return _UNKNOWN


def wait_for(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that the clock means something."""
    if device.type == "cuda":
        import torch

        torch.cuda.synchronize(device)


def refuse_size(n: int, need: int, have: int, device: str) -> SolverError:
    """The error for one problem that does not fit by itself."""
    return SolverError(
        f"a problem of {n} variables needs about {need / 2**20:.0f} MiB on {device}, of which "
        f"{have / 2**20:.0f} MiB can be used; use fewer replicas, precision='float32', another "
        "device, or 'annealing'"
    )
