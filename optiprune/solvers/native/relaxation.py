"""A binary quadratic in convex form, and what its continuous relaxation says about the optimum."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .convexify import Directions, semidefinite_diagonal, spectral_diagonal
from .instance import Instance
from .relax_kernels import descend, relaxed_fields, tangent

__all__ = ["Form", "convex_forms", "tangent_bound"]

_Array = npt.NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)
# seconds that an eigenvalue decomposition of order n takes at most, over n^3
_EIGEN_S = 1e-9


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """``scale * (c'x + 1/2 x'Mx)`` equals the instance's energy, less its offset, on feasible x.

    Attributes
    ----------
    M : (n, n) float64, positive semidefinite along the directions that keep the counts
    c : (n,) float64
    scale : a power of two, so that the largest coefficient is about 1
    starts, k : groups as in `Instance`; k empty for no counts
    group : (n,) group of each variable
    method : how the diagonal was chosen
    """

    M: _Array
    c: _Array
    scale: float
    starts: npt.NDArray[np.int64]
    k: npt.NDArray[np.int64]
    group: npt.NDArray[np.int64]
    method: str

    @property
    def n(self) -> int:
        return len(self.c)

    @property
    def rounding(self) -> float:
        """What a bound may be wrong by in float64, in units of ``scale``."""
        return 16.0 * _EPS * float(np.abs(self.M).sum() + np.abs(self.c).sum())

    def start(self) -> _Array:
        """A relaxed point: every group's count spread evenly."""
        if len(self.k) == 0:
            return np.full(self.n, 0.5)
        sizes = np.maximum(np.diff(self.starts), 1)
        return np.asarray((self.k / sizes)[self.group], dtype=np.float64)


def convex_forms(
    inst: Instance, diagonal: _Array, *, deadline: float = math.inf, semidefinite: bool = True
) -> Iterator[Form]:
    """Convex forms of an instance, cheap ones first, as long as there is time for the next.

    ``diagonal`` (n,) is that of the problem's Q, in the problem's order.

    Diagonal dominance (O(n^2)) only where there is no time for an eigenvalue; then the spectral
    shifts of nothing and of the problem's own diagonal; then the semidefinite one.
    """
    n = inst.n
    J = np.ascontiguousarray(inst.J[:, :n], dtype=np.float64)
    top = max(float(np.abs(J).max(initial=0.0)), float(np.abs(inst.a).max(initial=0.0)))
    scale = 2.0 ** math.floor(math.log2(top)) if top > 0.0 else 1.0
    J = J / scale
    a = inst.a / scale
    own = diagonal if inst.order is None else diagonal[inst.order]
    group = np.repeat(np.arange(len(inst.k)), np.diff(inst.starts)[: len(inst.k)])
    group = group.astype(np.int64) if len(inst.k) else np.zeros(n, np.int64)

    def form(d: _Array, method: str) -> Form:
        M = J.copy()
        M[np.arange(n), np.arange(n)] += d
        return Form(M, a - 0.5 * d, scale, inst.starts, inst.k, group, method)

    def room(decompositions: float) -> bool:
        return time.perf_counter() + decompositions * _EIGEN_S * n**3 < deadline

    if not room(4.0):
        yield form(np.abs(J).sum(axis=1) * (1.0 + n * _EPS), "diagonal dominance")
        return
    directions = Directions.of(n, inst.starts, inst.k)
    # the diagonal that a positive semidefinite Q brings along; a holds it with the linear term
    for d, method in zip(
        spectral_diagonal(J, np.maximum(2.0 / scale * own, 0.0), directions),
        ("uniform spectral shift", "own diagonal, shifted"),
        strict=True,
    ):
        yield form(d, method)
    if semidefinite and n > 1 and room(30.0):
        d_best = semidefinite_diagonal(
            J, a, directions, iterations=max(60, min(300, 90_000 // n)), deadline=deadline
        )
        if d_best is not None:
            yield form(d_best, "semidefinite programme")


def tangent_bound(form: Form, *, deadline: float = math.inf) -> float:
    """The bound of a tangent, offset left out: the relaxation is minimised until that is within
    1e-6 of it, or the deadline passes."""
    n = form.n
    x = form.start()
    g, buffer = np.empty(n), np.empty(n)
    fix = np.full(n, -1, np.int8)
    grouped = len(form.k) > 0
    ends = np.empty((2, len(form.k)))
    relaxed_fields(form.M, form.c, x, g)
    best = -math.inf
    steps = max(64, n)
    for _ in range(1000):
        done = descend(form.M, x, g, fix, form.starts, grouped, steps, 0.0)
        value, bound = tangent(
            form.c, x, g, fix, form.starts, grouped, form.k, ends[0], ends[1], buffer
        )
        best = max(best, bound)
        if done < steps or value - best <= 1e-6 * abs(value) or time.perf_counter() > deadline:
            break
    return form.scale * (best - form.rounding)
