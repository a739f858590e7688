"""One instance of a suite: what identifies it, how to get at it, and what is known of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.bench.errors import BenchError
from optiprune.problems import MIQP, CardinalityQP, FactoredMatrix, Problem
from optiprune.problems.base import QuadraticProblem

from .digest import digest

__all__ = ["BestKnown", "Instance", "bits_of", "hex_of", "rounding"]

_ROUNDING = 1e-12
"""Of the sum of all |terms|: some thousand units in the last place, for sums in another order."""
_PROOF = 1e-6


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
    rounding : `rounding` of the problem, None where it is not known
    """

    energy: float
    found_by: str
    x: str | None = None
    bound: float | None = None
    proven_by: str | None = None
    rounding: float | None = None

    @property
    def tolerance(self) -> float:
        """Energies that differ by no more are the same; 1e-9 of the energy where the problem's
        rounding is not known."""
        return 1e-9 * abs(self.energy) if self.rounding is None else self.rounding

    @property
    def proof_tolerance(self) -> float:
        """What a proof may be off by: solvers prove to about 1e-6, relative to the energy or, where
        that is near 0, to the coefficients. No absolute number: problems come in all scales."""
        return _PROOF * abs(self.energy) + 1e3 * self.tolerance

    def refutes(self, bound: float) -> bool:
        """Whether the energy lies below what is said to be a bound."""
        return bound > self.energy + self.proof_tolerance

    @property
    def proven(self) -> bool:
        """Whether the bound closes the gap."""
        return self.bound is not None and abs(self.energy - self.bound) <= self.proof_tolerance

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
            best = verify(name, problem, best)
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


def verify(name: str, problem: Problem, best: BestKnown) -> BestKnown:
    """Recompute a best known answer, and add the problem's rounding to it.

    Raises `BenchError` unless it is what it claims to be.
    """
    best = replace(best, rounding=rounding(problem))
    if best.x is None:
        return best
    x = bits_of(best.x, problem.n)
    violation = problem.violation(x)
    energy = problem.energy(x)
    if violation > 0 or not abs(energy - best.energy) <= best.proof_tolerance:
        raise BenchError(
            f"the best known answer of {name!r} claims energy {best.energy!r}; its x has energy "
            f"{energy!r} and violation {violation:g}"
        )
    return best


def rounding(problem: Problem) -> float:
    """By how much two sums of the same terms of an energy may differ: 1e-12 of the sum of all
    |terms|, offset included.

    An energy near 0 may be the difference of large terms, so that no share of the energy tells. The
    terms of an `MIQP` are those at the weights that each variable would take alone. Raises
    `BenchError` for a type that is not known.
    """
    if isinstance(problem, MIQP):
        alone = _alone(problem)
        terms = 0.5 * _absolute_sum(problem.H, alone) + float(np.abs(problem.b) @ alone)
    elif isinstance(problem, QuadraticProblem):
        terms = _absolute_sum(problem.Q, np.ones(problem.n)) + float(np.abs(problem.linear).sum())
    else:
        raise BenchError(f"no such problem type is known here: {type(problem).__name__}")
    return _ROUNDING * (terms + abs(problem.offset))


def _alone(problem: MIQP) -> npt.NDArray[np.float64]:
    """|w_i| that minimises over w_i with all other weights 0, shape (n,)."""
    h = problem.H.diag() if isinstance(problem.H, FactoredMatrix) else np.diagonal(problem.H)
    b = np.abs(problem.b).astype(np.float64)
    free = np.divide(b, h, out=np.full(problem.n, np.inf), where=h > 0)
    w = np.minimum(np.where(b > 0, free, 0.0), problem.M)
    # neither curvature nor a bound: no finite weight is the best
    return np.where(np.isfinite(w), w, 0.0)


def _absolute_sum(matrix: Any, w: npt.NDArray[np.float64]) -> float:
    """``sum_ij |m_ij| w_i w_j`` for w >= 0; of a factored matrix what its own sums add up."""
    if isinstance(matrix, FactoredMatrix):
        rows = np.abs(matrix.factor) @ w
        return float(rows @ rows + np.abs(matrix.diagonal) @ (w * w))
    # by rows: no second copy of a large matrix
    return float(sum(v * float(np.abs(row) @ w) for v, row in zip(w, matrix, strict=True)))


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
