"""The sweep tableau of best-subset selection: all marginal costs of a support at once.

For ``min 1/2 w'Hw - b'w`` on a support S (U is the rest), sweeping H bordered by b on S gives, in
one symmetric array, P = H_SS^-1, B = P H_SU, the Schur complements s = diag(H_UU - H_US B), the
weights w = P b_S and the residuals r = b_U - H_US w. Taking a variable into S or out of it is a
rank-one update, O(n^2).

Sources: Goodnight, "A tutorial on the SWEEP operator", The American Statistician 33 (1979);
Hassibi and Stork, "Second order derivatives for network pruning: optimal brain surgeon" (1992).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from numba import njit
from scipy.linalg import solve_triangular

__all__ = ["Tableau"]

# a Schur complement below this share of its diagonal entry counts as zero: collinear
_COLLINEAR = 1e-9
# pivots between two rebuilds from H
_REBUILD = 64


class Tableau:
    """Swept form of (H, b) on a set of pivots.

    Attributes
    ----------
    T : (n + 1, n + 1) float64; row and column n belong to b
    inside : (n,) bool, the variables swept in. A support may hold more: a variable that is
        collinear with others of the support is left out, gets weight 0 and costs nothing.
    H, b : (n, n) and (n,) float64, as given
    floor : (n,) Schur complements up to which a variable counts as collinear
    """

    __slots__ = ("H", "T", "_since", "b", "floor", "inside")

    def __init__(self, H: npt.NDArray[np.float64], b: npt.NDArray[np.float64]) -> None:
        n = len(b)
        self.H = H
        self.b = b
        self.floor = _COLLINEAR * np.maximum(H.diagonal(), 0.0)
        self.T = np.empty((n + 1, n + 1))
        self.inside = np.zeros(n, dtype=bool)
        self._since = 0
        self._reset()

    def _reset(self) -> None:
        n = len(self.b)
        self.T[:n, :n] = self.H
        self.T[:n, n] = self.b
        self.T[n, :n] = self.b
        self.T[n, n] = 0.0
        self.inside[:] = False
        self._since = 0

    def load(self, members: npt.NDArray[np.intp], check: Callable[[], None] | None = None) -> None:
        """Start over with the given support; collinear members are left out of the pivots.

        With ``check``, a function that raises when time is up, members are swept in one by one
        and it is called in between; without, one factorisation does it where H allows.
        """
        self._reset()
        if check is None and self._load_at_once(members):
            return
        left = list(members)
        # the largest pivot first, as in a pivoted Cholesky factorisation
        while left:
            d = self.T.diagonal()[left]
            ok = d > self.floor[left]
            if not ok.any():
                break
            at = int(np.argmax(np.where(ok, d, -1.0)))
            self._sweep(left.pop(at))
            if check is not None:
                check()
        self._since = 0

    def _load_at_once(self, members: npt.NDArray[np.intp]) -> bool:
        """Sweep all members by a Cholesky factorisation; False if they are nearly collinear."""
        S = np.asarray(members, dtype=np.intp)
        n = len(self.b)
        if len(S) < 8:
            return False
        hss = self.H[np.ix_(S, S)]
        try:
            factor = np.linalg.cholesky(hss)
        except np.linalg.LinAlgError:
            return False
        if (factor.diagonal() ** 2 <= 1e3 * self.floor[S]).any():
            return False
        root = solve_triangular(factor, np.eye(len(S)), lower=True)
        P = root.T @ root
        U = np.append(np.setdiff1d(np.arange(n), S), n)
        C = self.T[np.ix_(S, U)]
        B = P @ C
        self.T[np.ix_(U, U)] -= C.T @ B
        self.T[np.ix_(S, S)] = P
        self.T[np.ix_(S, U)] = B
        self.T[np.ix_(U, S)] = B.T
        self.inside[S] = True
        return True

    def refresh(self) -> None:
        """Recompute from H, to shed the rounding of many updates."""
        self.load(np.flatnonzero(self.inside))

    def can_enter(self, i: int) -> bool:
        """Whether i, not inside, is independent of those inside."""
        return bool(self.T[i, i] > self.floor[i])

    def enter(self, i: int) -> None:
        """Sweep i in; `can_enter` must hold."""
        self._sweep(i)
        self._count()

    def leave(self, i: int) -> None:
        """Sweep i out."""
        self._unsweep(i)
        self._count()

    def _count(self) -> None:
        self._since += 1
        if self._since >= _REBUILD:
            self.refresh()

    def _sweep(self, i: int) -> None:
        pivot(self.T, i, self.inside)
        self.inside[i] = True

    def _unsweep(self, i: int) -> None:
        self.inside[i] = False
        unpivot(self.T, i, self.inside)

    def weights(self) -> npt.NDArray[np.float64]:
        """Best weights, (n,), zero outside."""
        n = len(self.b)
        return np.where(self.inside, self.T[:n, n], 0.0)

    def energy(self) -> float:
        """``min 1/2 w'Hw - b'w`` on the support, which is ``-1/2 b'w``."""
        return -0.5 * float(self.b @ self.weights())

    def removal_costs(self) -> npt.NDArray[np.float64]:
        """Rise of energy for taking each inside variable out, (n,): ``w_p^2 / (2 P_pp)``.

        0 for variables outside (one of the support that is collinear costs nothing).
        """
        n = len(self.b)
        d = self.T.diagonal()[:n]
        w = self.T[:n, n]
        return np.where(self.inside, w * w / (2.0 * np.where(self.inside, d, 1.0)), 0.0)

    def gains(self) -> npt.NDArray[np.float64]:
        """Fall of energy for taking each outside variable in, (n,): ``r_q^2 / (2 s_q)``.

        0 for those inside and for collinear ones.
        """
        n = len(self.b)
        s = self.T.diagonal()[:n]
        r = self.T[:n, n]
        ok = ~self.inside & (s > self.floor)
        return np.where(ok, r * r / (2.0 * np.where(ok, s, 1.0)), 0.0)

    def exchange_deltas(
        self, out: npt.NDArray[np.intp], into: npt.NDArray[np.intp]
    ) -> npt.NDArray[np.float64]:
        """Exact change of energy for every exchange, (len(out), len(into)).

        ``w_p^2 / (2 P_pp) - (r_q + B_pq w_p / P_pp)^2 / (2 (s_q + B_pq^2 / P_pp))``, in which p
        leaves and q enters; ``out`` must be inside. inf where q is collinear with what remains.
        """
        n = len(self.b)
        d = self.T.diagonal()
        p = d[out][:, None]
        w = self.T[out, n][:, None]
        B = self.T[np.ix_(out, into)]
        s = d[into] + B * B / p
        r = self.T[into, n] + B * (w / p)
        ok = s > self.floor[into]
        gain = np.where(ok, r * r / (2.0 * np.where(ok, s, 1.0)), -np.inf)
        return np.asarray(w * w / (2.0 * p) - gain)


@njit(nogil=True, cache=True)
def pivot(T, i, inside):  # type: ignore[no-untyped-def]
    """Sweep i in; ``inside[i]`` is still False.

    With d = T_ii and u the column of i, an entry (a, c) gains ``u_a u_c / d`` where both are
    inside (P grows) and loses it elsewhere (B, Schur complements, w and r).
    """
    m = T.shape[0]
    d = T[i, i]
    both = np.empty(m)
    other = np.empty(m)
    for c in range(m):
        other[c] = -T[i, c]
        both[c] = T[i, c] if c < m - 1 and inside[c] else -T[i, c]
    other[i] = 0.0
    both[i] = 0.0
    _add_rank_one(T, i, d, both, other, inside)
    _turn(T, i, d, inside)


@njit(nogil=True, cache=True)
def unpivot(T, i, inside):  # type: ignore[no-untyped-def]
    """Sweep i out; ``inside[i]`` is False already. The inverse of `pivot`.

    With p = T_ii = P_ii, an entry (a, c) gains ``u_a u_c / p`` where both are outside and loses it
    elsewhere.
    """
    m = T.shape[0]
    p = T[i, i]
    inner = np.empty(m)
    outer = np.empty(m)
    for c in range(m):
        inner[c] = -T[i, c]
        outer[c] = -T[i, c] if c < m - 1 and inside[c] else T[i, c]
    inner[i] = 0.0
    outer[i] = 0.0
    _add_rank_one(T, i, p, inner, outer, inside)
    _turn(T, i, p, inside)


@njit(nogil=True, cache=True)
def _add_rank_one(T, i, d, inner, outer, inside):  # type: ignore[no-untyped-def]
    """Add ``T_ai / d`` times ``inner`` to the rows a inside, times ``outer`` to the others."""
    m = T.shape[0]
    for a in range(m):
        u = T[i, a] / d  # not T[a, i]: what asymmetry rounding leaves would grow
        if a == i or u == 0.0:
            continue
        row = T[a]
        if a < m - 1 and inside[a]:
            for c in range(m):
                row[c] += u * inner[c]
        else:
            for c in range(m):
                row[c] += u * outer[c]


@njit(nogil=True, cache=True)
def _turn(T, i, d, inside):  # type: ignore[no-untyped-def]
    """Row and column i after a pivot d: divided, with a change of sign towards the inside."""
    m = T.shape[0]
    for a in range(m):
        if a != i:
            v = T[i, a] / d
            if a < m - 1 and inside[a]:
                v = -v
            T[i, a] = v
            T[a, i] = v
    T[i, i] = 1.0 / d
