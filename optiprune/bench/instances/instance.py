"""One instance of a suite: what identifies it, how to get at it, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.bench.errors import BenchError
from optiprune.problems import CardinalityQP, Problem

from .digest import digest

__all__ = ["BestKnown", "Instance", "bits_of", "hex_of"]


@dataclass(frozen=True, slots=True)
class BestKnown:
    """The lowest energy known, and the highest lower bound.

    Attributes
    ----------
    energy : offset included
    found_by : solver, paper or construction
    x : the assignment as `hex_of` writes it, or None where only the value was published
    bound : no feasible assignment has an energy below it; None where nothing is proven
    proven_by : who proved the bound
    """

    energy: float
    found_by: str
    x: str | None = None
    bound: float | None = None
    proven_by: str | None = None

    @property
    def proven(self) -> bool:
        """Whether the bound closes the gap, within 1e-6 of ``1 + |energy|`` as for solvers."""
        return self.bound is not None and self.bound >= self.energy - 1e-6 * (1 + abs(self.energy))

    def as_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class Instance:
    """A problem by name, loaded when it is needed.

    Attributes
    ----------
    name : unique in its suite
    family : instances that belong together in a table, whatever their size
    recipe : name and version of what made it
    seed : of the recipe; None for files
    kind, n, k : type name, variables, ones in a feasible answer (None where that is not fixed)
    sha256 : `digest` of the content
    source : returns the problem; picklable, so that another process can load it
    best : what is known before any run, or None
    """

    name: str
    family: str
    recipe: str
    seed: int | None
    kind: str
    n: int
    k: int | None
    sha256: str
    source: Callable[[], Problem]
    best: BestKnown | None = None

    @classmethod
    def of(
        cls,
        name: str,
        problem: Problem,
        source: Callable[[], Problem],
        *,
        family: str,
        recipe: str,
        seed: int | None = None,
        best: BestKnown | None = None,
    ) -> Instance:
        """Describe a problem that lies at hand; a claimed best answer is checked.

        Raises `BenchError` if x of ``best`` is not feasible or has another energy.
        """
        k = int(problem.k.sum()) if isinstance(problem, CardinalityQP) else None
        kind = type(problem).__name__
        if best is not None:
            verify(name, problem, best)
        return cls(name, family, recipe, seed, kind, problem.n, k, digest(problem), source, best)

    def load(self) -> Problem:
        """The problem. Raises `BenchError` if it is no longer the one that was described."""
        problem = self.source()
        found = digest(problem)
        if found != self.sha256:
            raise BenchError(
                f"instance {self.name!r} has changed: its content hashes to {found[:12]}..., the "
                f"description says {self.sha256[:12]}...; begin a new results folder"
            )
        return problem

    def with_best(self, best: BestKnown | None) -> Instance:
        return replace(self, best=best)

    def description(self) -> dict[str, Any]:
        """All but the source, for a manifest."""
        names = ("name", "family", "recipe", "seed", "kind", "n", "k", "sha256")
        out = {name: getattr(self, name) for name in names}
        out["best_known"] = None if self.best is None else self.best.as_dict()
        return out


def verify(name: str, problem: Problem, best: BestKnown) -> None:
    """Recompute a best known answer. Raises `BenchError` unless it is what it claims to be."""
    if best.x is None:
        return
    x = bits_of(best.x, problem.n)
    violation = problem.violation(x)
    energy = problem.energy(x)
    if violation > 0 or not abs(energy - best.energy) <= 1e-6 * (1 + abs(energy)):
        raise BenchError(
            f"the best known answer of {name!r} claims energy {best.energy!r}; its x has energy "
            f"{energy!r} and violation {violation:g}"
        )


def hex_of(x: npt.ArrayLike) -> str:
    """A 0/1 vector as hexadecimal digits, 8 variables in two of them, the first in the top bit."""
    return np.packbits(np.asarray(x, dtype=np.uint8)).tobytes().hex()


def bits_of(text: str, n: int) -> npt.NDArray[np.int8]:
    """The vector, shape (n,), that `hex_of` wrote. Raises `BenchError` for anything else."""
    try:
        packed = np.frombuffer(bytes.fromhex(text), dtype=np.uint8)
    except (ValueError, TypeError) as e:
        raise BenchError(f"{text!r} is no assignment in hexadecimal: {e}") from None
    if len(packed) != -(-n // 8):
        raise BenchError(
            f"an assignment of {n} variables has {-(-n // 8)} bytes, got {len(packed)}"
        )
    return np.unpackbits(packed, count=n).astype(np.int8)
