"""The plan of a run: its layers and problems, memory and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["LayerPlan", "RunPlan", "TooLargeError", "require_memory"]


class TooLargeError(ValueError):
    """The run would not fit in memory; the message has the numbers."""


def require_memory(memory: Mapping[str, int], available: int) -> None:
    """Raise `TooLargeError` if the bytes, by what they are for, are more than there are."""
    needed = sum(memory.values())
    if needed <= available:
        return
    most = max(memory, key=lambda k: memory[k])
    raise TooLargeError(
        f"the run needs about {needed / 2**30:.1f} GiB more than it has now, and "
        f"{available / 2**30:.1f} GiB are available; most of it is for {most} "
        f"({memory[most] / 2**30:.1f} GiB). Fewer samples, a smaller curvature.chunk, or "
        "tune.epochs = 0 need less"
    )


@dataclass(frozen=True, slots=True)
class LayerPlan:
    """One layer.

    Attributes
    ----------
    name, shape : of its weight
    kept : weights that stay; None where the allocation is to find out
    problems : how many problems one pass over it poses, and ``size`` variables of the largest
    kind : of problem
    gram : bytes of its Gram matrices
    seconds : estimated
    """

    name: str
    shape: tuple[int, ...]
    kept: int | None
    problems: int
    size: int
    kind: str
    gram: int
    seconds: float

    @property
    def total(self) -> int:
        n = 1
        for s in self.shape:
            n *= s
        return n


@dataclass(frozen=True, slots=True)
class RunPlan:
    """What `plan_masks` returns.

    Attributes
    ----------
    objective, solver : of the run, 'auto' settled
    layers : in the order of the model
    samples, holdout_samples : calibration samples to fit, and to judge by
    memory : bytes by what they are for, those that are held at once at the peak
    now : bytes of the process as it is, with model and data
    available : bytes that the machine would still give
    seconds : estimated, by part of the run
    probe_seconds : that the estimate took
    notes : as in `RunReport`
    """

    objective: str
    solver: str
    layers: tuple[LayerPlan, ...]
    samples: int
    holdout_samples: int
    memory: Mapping[str, int]
    now: int
    available: int
    seconds: Mapping[str, float]
    probe_seconds: float
    notes: tuple[str, ...] = ()

    @property
    def needed(self) -> int:
        """Bytes beyond those of now."""
        return sum(self.memory.values())

    @property
    def total_seconds(self) -> float:
        return sum(self.seconds.values())

    def require_memory(self) -> None:
        """Raise `TooLargeError` if more is needed than there is."""
        require_memory(self.memory, self.available)

    def as_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON."""
        return asdict(self)
