"""An `MIQP` in the units of the perspective relaxation, and the relaxation of the whole problem."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.linalg import eigvalsh

from optiprune.problems import MIQP

from .subset_diagonal import improve_diagonal
from .subset_kernels import relax_subset

__all__ = [
    "EIGEN_S",
    "Scratch",
    "SubsetForm",
    "SubsetRoot",
    "relax_root",
    "rounding",
    "subset_form",
]

_Array = npt.NDArray[np.float64]
_EPS = float(np.finfo(np.float64).eps)
# least eigenvalue, of a unit diagonal, below which a ridge of that size is added
_RIDGE = 1e-11
# seconds that the least eigenvalue of order n takes at most, over n^3, and a linear system
EIGEN_S = 3e-10
_SYSTEM_S = 2e-10
# steps of the diagonal at the root, how fast the barrier shrinks, steps in vain until it ends
_STEPS = 60
_SHRINK = 0.7
_PATIENCE = 4
_ROUNDS = 30


@dataclass(frozen=True, slots=True, eq=False)
class SubsetForm:
    """``offset + scale * (1/2 u'Hu - b'u)`` with ``w = u / unit`` has an MIQP's energies.

    H has a diagonal of 1 (a weight that H does not see keeps its zeros if b sees it) and the
    largest |b| is 1, so that constants of the kernels mean the same for every problem.

    Attributes
    ----------
    H : (n, n) float64, positive definite: with a ``ridge`` on its diagonal where it was not
    b, M, unit : (n,) float64
    d : (n,) a uniform diagonal with ``H - diag(d)`` positive definite
    """

    H: _Array
    b: _Array
    M: _Array
    unit: _Array
    d: _Array
    k: int
    scale: float
    offset: float
    ridge: float

    @property
    def n(self) -> int:
        return len(self.b)

    def slack(self, weights: _Array) -> float:
        """How much the ridge may lift the energy of weights like these, in the problem's units."""
        if self.ridge == 0.0:
            return 0.0
        u = self.unit * weights
        return self.ridge * float(u @ u)


def subset_form(problem: MIQP) -> SubsetForm:
    """Scale a problem. O(n^3): one eigenvalue."""
    n = problem.n
    H = np.array(problem.dense(), dtype=np.float64)
    b, M = np.array(problem.b, dtype=np.float64), np.array(problem.M, dtype=np.float64)
    diagonal = np.maximum(H.diagonal(), 0.0)
    seen = diagonal > 0.0
    unit = np.where(seen, np.sqrt(diagonal), 1.0)
    H /= unit[:, None]
    H /= unit[None, :]
    H = 0.5 * (H + H.T)
    dead = ~seen
    H[dead] = 0.0
    H[:, dead] = 0.0
    b /= unit
    on = np.arange(n)
    # a weight that neither H nor b sees is 0 at no cost: any curvature will do
    H[on, on] = np.where(dead & (b != 0.0), 0.0, 1.0)
    top = float(np.abs(b).max(initial=0.0))
    top = top if top > 0.0 else 1.0
    least = float(eigvalsh(H, subset_by_index=[0, 0])[0]) if n else 1.0
    ridge = 0.0 if least > _RIDGE else _RIDGE + max(0.0, -2.0 * least)
    H[on, on] += ridge
    d = np.full(n, 0.9 * (least if ridge == 0.0 else 0.5 * (least + ridge)))
    return SubsetForm(
        H, b / top, M * (unit / top), unit, d, problem.k, top * top, problem.offset, ridge
    )


def rounding(problem: MIQP, w: _Array) -> float:
    """What a bound may be wrong by in float64, by the terms of the energy of weights w (n,).

    Sums of n terms, over chains of eliminations.
    """
    s = np.flatnonzero(w)
    size = np.abs(w[s])
    H = problem.dense()[np.ix_(s, s)]
    terms = float(0.5 * size @ np.abs(H) @ size + np.abs(problem.b[s]) @ size)
    return 16.0 * problem.n * _EPS * (terms + abs(problem.offset))


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
        # few linear systems at a time where one is long, but enough to pass a Newton step in vain
        rounds = max(3, min(_ROUNDS, int(0.02 / max(root.pace, 1e-9))))
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
