"""An `MIQP` in the units of the perspective relaxation, and the relaxation of the whole problem."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh

from optiprune.problems import MIQP
from optiprune.problems.boxqp import RANK

from .subset_diagonal import improve_diagonal
from .subset_kernels import relax_subset

__all__ = [
    "EIGEN_S",
    "ScaledSubset",
    "Scratch",
    "SubsetForm",
    "SubsetRoot",
    "relax_root",
    "scaled_subset",
    "subset_form",
]

_Array = npt.NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)
# eigenvalues of an order-n matrix with a diagonal of 1 that rounding may move one by, over n eps:
# eliminations and tangents are exact for a matrix as near as that
_ROUND = 4.0
# what the least eigenvalue is raised to, in the same units: more loosens bounds, less leaves Newton
# steps without digits
_FLOOR = 64.0
# energies of a smaller (larger) scale are not relaxed: they underflow (overflow)
_SMALLEST = 1e-280
# seconds that the least eigenvalue of order n takes at most, over n^3, and a linear system
EIGEN_S = 3e-10
_SYSTEM_S = 2e-10
# steps of the diagonal at the root, how fast the barrier shrinks, steps in vain until it ends
_STEPS = 60
_SHRINK = 0.7
_PATIENCE = 4
_ROUNDS = 30
# up to this many variables, all those rounds are made in one call
_ONE_CALL = 400


@dataclass(frozen=True, slots=True, eq=False)
class ScaledSubset:
    """``offset + scale * (1/2 u'Hu - b'u)`` has an MIQP's energies, in other units of the weights.

    H has a diagonal of 1 and the largest |b| is 1, so that constants of the kernels mean the same
    for every problem. A weight that H does not see is worth ``|b| M``, alone: it becomes one that
    H sees alone and that gains as much.

    Attributes
    ----------
    H : (n, n) float64
    b, M : (n,) float64
    alone : (n,) bool, the weights that H does not see
    """

    H: _Array
    b: _Array
    M: _Array
    alone: npt.NDArray[np.bool_]
    k: int
    scale: float
    offset: float

    @property
    def n(self) -> int:
        return len(self.b)

    @property
    def floor(self) -> float:
        """Eigenvalues below this are lost in rounding."""
        return _FLOOR * self.n * _EPS

    def with_ridge(self, ridge: float) -> _Array:
        """H with a ridge on its diagonal."""
        H = self.H.copy()
        H[np.diag_indices(self.n)] += ridge
        return H

    def margins(self, least: float, ridge: float) -> tuple[float, float] | None:
        """(stretch, shift), by which a bound for H with a ridge becomes one for H; None without.

        No support's true energy (of `MIQP.energy`, in these units) is below ``stretch * bound -
        shift``. Ridge and rounding add at most ``margin / 2 |u|^2`` to the energy of the best
        weights u of a support, and

        - ``|u|^2 <= 2 gain / least``, since along the way from 0 to u the energy falls throughout;
          directions with a curvature of at most `RANK` are not used, so that RANK does for least;
        - where a bound M is active these may be used after all, but u is within M.

        Parameters
        ----------
        least : the least eigenvalue of H, or less
        """
        margin = ridge + _ROUND * self.n * _EPS
        # twice: whether an eigenvalue is below RANK is a matter of rounding next to it
        if least >= 2.0 * RANK or (np.isinf(self.M) | self.alone | (self.M == 0.0)).all():
            share = margin / max(least, RANK)
            return (1.0 / (1.0 - share), 0.0) if share < 0.5 else None
        if np.isfinite(self.M).all():
            return 1.0, 0.5 * margin * float(np.sort(self.M**2)[self.n - self.k :].sum())
        return None


def scaled_subset(problem: MIQP) -> ScaledSubset | None:
    """Scale a problem; None if energies are unbounded or beyond what float64 holds. O(n^2)."""
    H = np.array(problem.dense(), dtype=np.float64)
    b, M = np.array(problem.b, dtype=np.float64), np.array(problem.M, dtype=np.float64)
    diagonal = np.maximum(H.diagonal(), 0.0)
    largest = float(diagonal.max(initial=0.0))
    unit = np.sqrt(np.where(diagonal > 0.0, diagonal, largest if largest > 0.0 else 1.0))
    alone = (diagonal == 0.0) & ~H.any(axis=1)
    H /= unit[:, None]
    H /= unit[None, :]
    H = 0.5 * (H + H.T)
    pull = np.abs(b[alone]) * np.where(b[alone] != 0.0, M[alone], 0.0)
    b /= unit
    M *= unit
    on = np.flatnonzero(alone)
    H[on, on] = 1.0
    b[on] = M[on] = np.sqrt(2.0 * pull)
    top = float(np.abs(b).max(initial=0.0))
    top = top if top > 0.0 else 1.0
    scale = top * top
    if not (np.isfinite(H).all() and scale < 1.0 / _SMALLEST):
        return None
    return ScaledSubset(H, b / top, M / top, alone, problem.k, scale, problem.offset)


@dataclass(frozen=True, slots=True, eq=False)
class SubsetForm:
    """What the relaxation and its tree work on: an MIQP's `ScaledSubset`, H positive definite.

    Its values are no energies: `outward` makes one a bound on energies, `inward` tells what a value
    must come to for that.

    Attributes
    ----------
    H : (n, n) float64, with a ridge on its diagonal where it was not definite beyond rounding
    b, M : (n,) float64
    d : (n,) a uniform diagonal with ``H - diag(d)`` positive definite
    stretch, shift : see `ScaledSubset.margins`
    """

    H: _Array
    b: _Array
    M: _Array
    d: _Array
    k: int
    scale: float
    offset: float
    stretch: float
    shift: float

    @property
    def n(self) -> int:
        return len(self.b)

    def inward(self, energy: float) -> float:
        """The least value that shows that there is nothing below an energy."""
        return ((energy - self.offset) / self.scale + self.shift) / self.stretch

    def outward(self, value: float) -> float:
        """The bound on the problem's energies that a bound on values is."""
        return self.offset + self.scale * (self.stretch * value - self.shift)


def subset_form(problem: MIQP) -> SubsetForm | None:
    """Scale a problem and make it definite; None where no bound would hold. O(n^3)."""
    s = scaled_subset(problem)
    if s is None or s.scale < _SMALLEST:
        return None
    least = float(eigvalsh(s.H, subset_by_index=[0, 0])[0]) if s.n else 1.0
    ridge = max(0.0, s.floor - least)
    margins = s.margins(least, ridge)
    if margins is None:
        return None
    # half of a floor stays between H - diag(d) and what rounding may take
    d = np.full(s.n, 0.9 * least if least > 2.0 * s.floor else 0.45 * s.floor)
    return SubsetForm(s.with_ridge(ridge), s.b, s.M, d, s.k, s.scale, s.offset, *margins)


class Scratch:
    """Arrays that the kernels write to, for n variables."""

    def __init__(self, n: int) -> None:
        self.C2, self.L, self.R, self.S = np.empty((4, n, n))
        self.work, self.wide = np.empty((8, n)), np.empty((8, n))
        self.whole = np.empty((3, n), np.int64)


@dataclass(slots=True, eq=False)
class SubsetRoot:
    """The relaxation of the whole problem, in units of the form.

    Attributes
    ----------
    d, w : (n,) the diagonal that gave the best bound, and the minimum of its relaxation
    bound : -inf if there was no time for one
    pace : seconds that one linear system took
    """

    d: _Array
    w: _Array
    bound: float
    pace: float


def relax_root(
    form: SubsetForm, scratch: Scratch, *, deadline: float = math.inf, cutoff: float = math.inf
) -> SubsetRoot:
    """Raise the bound over diagonals until it stops rising, passes ``cutoff``, or time is up."""
    n, k = form.n, form.k
    d, w, z = form.d.copy(), np.zeros(n), np.zeros(n)
    free = np.arange(n)
    root = SubsetRoot(d.copy(), w.copy(), -math.inf, _SYSTEM_S * n**3)
    if n == 0 or k in (0, n):
        return root
    mu, vain = 0.0, 0
    for step in range(_STEPS):
        before = root.bound
        _relax(form, scratch, free, d, w, z, root, deadline, cutoff)
        rise = root.bound - before
        enough = 1e-3 * (cutoff - before) if cutoff < math.inf else 1e-6 * abs(before)
        vain = 0 if step == 0 or rise > enough else vain + 1
        if root.bound >= cutoff or vain == _PATIENCE:
            break
        if time.perf_counter() + 8.0 * root.pace > deadline:
            break
        if step == 0:
            slope = 0.5 * w * w * (1.0 / np.where(z > 0.0, z, 1.0) - 1.0)
            mu = float(slope @ d) / n
        s = scratch
        improve_diagonal(form.H, free, n, d, w, z, mu, s.L, s.R, s.S, s.wide[6], s.wide[7])
        mu *= _SHRINK
    return root


def _relax(
    form: SubsetForm,
    s: Scratch,
    free: npt.NDArray[np.int64],
    d: _Array,
    w: _Array,
    z: _Array,
    root: SubsetRoot,
    deadline: float,
    cutoff: float,
) -> None:
    """Minimise the relaxation for one diagonal; ``root`` takes what is better."""
    n = form.n
    p, h = np.empty(n), np.empty(n)
    done, value, lower = 0, math.inf, -math.inf
    while done < _ROUNDS:
        # few linear systems at a time where one is long, but enough to pass a Newton step in vain.
        # A call starts afresh, so that how many there are must not depend on the clock unless the
        # time is limited
        rounds = int(_ROUNDS * min(1.0, (_ONE_CALL / n) ** 3))
        if deadline < math.inf:
            rounds = min(_ROUNDS, int(0.02 / max(root.pace, 1e-9)))
        rounds = max(3, rounds)
        began = time.perf_counter()
        if began + rounds * root.pace > deadline:
            return
        last = value
        value, lower = relax_subset(
            form.H, form.b, form.M, free, n, form.k, d, w, z, p, h, s.work, s.whole[0], s.whole[1],
            s.L, cutoff, 1e-9 * abs(value) if value < math.inf else 0.0, rounds,
        )  # fmt: skip
        done += rounds
        if root.bound > -math.inf:  # the first call may compile
            root.pace = max(root.pace, (time.perf_counter() - began) / rounds)
        if lower > root.bound:
            root.d, root.w, root.bound = d.copy(), w.copy(), lower
        if lower >= cutoff or value - lower <= 1e-9 * abs(value) or value == last:
            return
