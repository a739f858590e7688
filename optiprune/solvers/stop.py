"""When to stop, as values: combine criteria with ``|`` and the first one met stops the solve."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

from .options import whole

__all__ = [
    "AnyOf",
    "IterationLimit",
    "Limits",
    "NoImprovement",
    "Stop",
    "Target",
    "TimeLimit",
    "limits",
]


class _Combine:
    __slots__ = ()

    def __or__(self, other: Stop) -> AnyOf:
        return AnyOf((self, other))  # type: ignore[arg-type]


@dataclass(frozen=True, slots=True)
class TimeLimit(_Combine):
    """Stop after ``seconds`` of wall-clock time (>= 0); the incumbent is returned."""

    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise ValueError(f"a time limit must be >= 0 seconds, got {self.seconds!r}")


@dataclass(frozen=True, slots=True)
class IterationLimit(_Combine):
    """Stop after ``iterations`` (>= 0) proposed moves, or nodes for tree searches."""

    iterations: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "iterations", whole("an iteration limit", self.iterations, 0))


@dataclass(frozen=True, slots=True)
class Target(_Combine):
    """Stop once an incumbent has energy <= ``energy``."""

    energy: float

    def __post_init__(self) -> None:
        if math.isnan(self.energy):
            raise ValueError("a target energy must not be NaN")


@dataclass(frozen=True, slots=True)
class NoImprovement(_Combine):
    """Stop after ``iterations`` (>= 1) proposed moves in a row without a better incumbent."""

    iterations: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "iterations", whole("no-improvement", self.iterations, 1))


@dataclass(frozen=True, slots=True)
class AnyOf(_Combine):
    """Stop as soon as any of ``criteria`` is met."""

    criteria: tuple[Stop, ...]


Stop: TypeAlias = TimeLimit | IterationLimit | Target | NoImprovement | AnyOf


@dataclass(frozen=True, slots=True)
class Limits:
    """The tightest limit of each kind; what a solver's inner loop looks at."""

    time_s: float = math.inf
    iterations: float = math.inf
    target: float = -math.inf
    no_improvement: float = math.inf

    @property
    def unlimited(self) -> bool:
        """No criterion at all: the solver runs its own schedule to the end."""
        return self == Limits()


def limits(stop: Stop | None) -> Limits:
    """Flatten a criterion into `Limits`. Raises TypeError for anything else."""
    if stop is None:
        return Limits()
    if isinstance(stop, TimeLimit):
        return Limits(time_s=stop.seconds)
    if isinstance(stop, IterationLimit):
        return Limits(iterations=stop.iterations)
    if isinstance(stop, Target):
        return Limits(target=stop.energy)
    if isinstance(stop, NoImprovement):
        return Limits(no_improvement=stop.iterations)
    if isinstance(stop, AnyOf):
        parts = [limits(c) for c in stop.criteria]
        return Limits(
            time_s=min((p.time_s for p in parts), default=math.inf),
            iterations=min((p.iterations for p in parts), default=math.inf),
            target=max((p.target for p in parts), default=-math.inf),
            no_improvement=min((p.no_improvement for p in parts), default=math.inf),
        )
    raise TypeError(
        f"stop must be a TimeLimit, IterationLimit, Target, NoImprovement or AnyOf, got {stop!r}"
    )
