"""Problems sorted into batches of one shape, and stacked as arrays."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from optiprune.problems import QUBO, CardinalityQP
from optiprune.solvers.base import Watch

__all__ = [
    "BLOCK",
    "SAMPLE",
    "Batch",
    "Item",
    "Shape",
    "bytes_per_problem",
    "group_by_shape",
    "movable",
    "needs_double",
    "padded",
    "stack",
]

# steps whose random numbers are made at once, and between two looks at the stop criteria
BLOCK = 64
# exchanges of each problem that its temperatures are taken from
SAMPLE = 16
# integers up to 2**24 are exact in float32, and so are their sums below that
_EXACT = float(1 << 24)
# rows of a large problem that are looked at to choose the precision
_SURVEYED = 256


@dataclass(frozen=True, slots=True)
class Shape:
    """What problems of one batch have in common; none of it shows in their answers.

    Attributes
    ----------
    exchange : fixed cardinality, searched by exchanges; else flips
    width : variables, rounded up (the rest is padding that never moves)
    replicas : searches of each problem side by side
    double : float64 inside the search, else float32
    grouped : more than one group
    warm : with an x0
    """

    exchange: bool
    width: int
    replicas: int
    double: bool
    grouped: bool
    warm: bool

    @property
    def dtype(self) -> type[np.floating[Any]]:
        return np.float64 if self.double else np.float32


@dataclass(frozen=True, slots=True, eq=False)
class Item:
    """One problem of a call.

    Attributes
    ----------
    index : position in the caller's list
    words : two 32-bit numbers that name the problem's random stream
    movers : pruned variables that can come in (or variables, without a cardinality)
    sweeps : of its schedule; a sweep is ``movers`` steps
    """

    index: int
    problem: QUBO | CardinalityQP
    x0: npt.NDArray[np.int8] | None
    words: tuple[int, int]
    watch: Watch
    shape: Shape
    movers: int
    sweeps: int


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Stacked problems, B of them, padded to a width W; energies in units of ``2**exponent``.

    ``energy(x) * 2**-exponent = linear'x + 1/2 x'Jx`` (offset left out), J and linear within
    [-1, 1] or little above it, so that no problem is too large or too small for float32.

    Attributes
    ----------
    J : (B, W, W) in the precision of the search; twice the off-diagonal of Q, zero diagonal
    linear : (B, W), linear terms plus the diagonal of Q
    exponent : (B,) int64
    n, movers, sweeps : (B,) int64
    words : (B, 2) int64
    groups : (B, W) int64; padding belongs to group ``k.shape[1] - 1``, whose count is 0
    k : (B, G + 1) int64, ones per group (a single entry 0 for flips)
    first : (B, S) int64, variables to begin with in this order, then -1: those of x0, as many as
        the groups may hold; S = 0 if no problem of the batch has an x0
    """

    shape: Shape
    J: npt.NDArray[Any]
    linear: npt.NDArray[Any]
    exponent: npt.NDArray[np.int64]
    n: npt.NDArray[np.int64]
    movers: npt.NDArray[np.int64]
    sweeps: npt.NDArray[np.int64]
    words: npt.NDArray[np.int64]
    groups: npt.NDArray[np.int64]
    k: npt.NDArray[np.int64]
    first: npt.NDArray[np.int64]


def padded(n: int) -> int:
    """The width of a batch for n variables: at most an eighth more, so that few shapes arise."""
    step = 8
    while step * 8 < n:
        step *= 2
    return -(-n // step) * step


def movable(problem: CardinalityQP) -> int:
    """Pruned variables of the groups in which anything can be exchanged."""
    sizes = np.bincount(problem.groups, minlength=problem.n_groups)
    moves = (problem.k > 0) & (problem.k < sizes)
    return int((sizes - problem.k)[moves].sum())


def needs_double(problem: QUBO | CardinalityQP) -> bool:
    """Whether float32 would lose information that a search needs.

    Integers stay exact below 2**24. Otherwise the rounding of a field, 2**-24 times the largest sum
    in it, must be small against the spread of the couplings that the search tells apart (a large
    penalty coefficient, the same in every coupling, is what breaks that).
    """
    n = problem.n
    rows = np.arange(0, n, max(1, n // _SURVEYED))  # all of them, or some of many
    q = problem.dense(np.float64)[rows]
    size = np.abs(q)
    most = 2.0 * float(size.sum(axis=1).max()) + float(np.abs(problem.linear).max())
    if most == 0.0:
        return False
    if most < _EXACT and bool((2.0 * q == np.rint(2.0 * q)).all()):
        whole = problem.linear + problem.diagonal()
        if bool((whole == np.rint(whole)).all()):
            return False
    if n < 2:
        return False
    scale = float(size.max()) or 1.0
    off = q / scale
    off[np.arange(len(rows)), rows] = 0.0
    pairs = len(rows) * (n - 1)
    mean = float(off.sum()) / pairs
    spread = 2.0 * scale * float(np.sqrt(max(0.0, float((off * off).sum()) / pairs - mean * mean)))
    if spread <= 1e-6 * scale:
        spread = float((problem.linear + problem.diagonal()).std())
    return most / _EXACT > 1e-2 * spread


def group_by_shape(items: Iterable[Item]) -> dict[Shape, list[Item]]:
    """Items of one shape together, those with schedules of similar length side by side."""
    out: dict[Shape, list[Item]] = {}
    for item in items:
        out.setdefault(item.shape, []).append(item)
    for together in out.values():
        together.sort(key=lambda item: (item.sweeps * item.movers, item.index))
    return out


def bytes_per_problem(shape: Shape, movers: int, n_groups: int) -> int:
    """An estimate of what one problem takes while its batch is searched."""
    size = 8 if shape.double else 4
    w = shape.width
    couplings = 2 * w * w * size  # the stacked array and its copy on the device
    groups = (n_groups + 1) * w * size if shape.grouped else 0
    # fields, bias, score, noise, row and what is gathered of them; assignments; slots; random words
    row = w * (9 * size + 3) + 8 * movers * (4 if shape.exchange else 0) + 64 * BLOCK
    sample = 24 * w * (SAMPLE if shape.exchange else 1)
    return couplings + groups + sample + max(shape.replicas, 3) * row


def stack(items: Sequence[Item]) -> Batch:
    """The arrays of a batch; ``items`` are of one shape."""
    shape = items[0].shape
    count, w = len(items), shape.width
    J = np.zeros((count, w, w), shape.dtype)
    linear = np.zeros((count, w), shape.dtype)
    exponent = np.zeros(count, np.int64)
    widest = max((len(i.problem.k) if shape.exchange else 0) for i in items)  # type: ignore[union-attr]
    groups = np.full((count, w), widest, np.int64)
    k = np.zeros((count, widest + 1), np.int64)
    firsts: list[npt.NDArray[np.int64]] = []
    for b, item in enumerate(items):
        p, n = item.problem, item.problem.n
        q = p.dense(np.float64)
        a = p.linear + p.diagonal()
        top = max(2.0 * float(q.max()), -2.0 * float(q.min()), float(np.abs(a).max()))
        exponent[b] = e = int(np.frexp(top)[1])
        if abs(e) < 1000:
            np.multiply(q, math.ldexp(1.0, 1 - e), out=J[b, :n, :n], casting="same_kind")
        else:
            J[b, :n, :n] = np.ldexp(q, 1 - e)  # where the factor itself is no float64
        linear[b, :n] = np.ldexp(a, -e)
        if isinstance(p, CardinalityQP):
            groups[b, :n] = p.groups
            k[b, : p.n_groups] = p.k
        else:
            groups[b, :n] = 0
        firsts.append(_first(p, item.x0))
    steps = np.arange(w)
    J[:, steps, steps] = 0
    first = np.full((count, max((len(f) for f in firsts), default=0)), -1, np.int64)
    for b, f in enumerate(firsts):
        first[b, : len(f)] = f
    return Batch(
        shape,
        J,
        linear,
        exponent,
        np.array([i.problem.n for i in items], np.int64),
        np.array([i.movers for i in items], np.int64),
        np.array([i.sweeps for i in items], np.int64),
        np.array([i.words for i in items], np.int64),
        groups,
        k,
        first,
    )


def _first(problem: QUBO | CardinalityQP, x0: npt.NDArray[np.int8] | None) -> npt.NDArray[np.int64]:
    """The ones of x0 in order of index, of each group no more than it may hold."""
    if x0 is None:
        return np.zeros(0, np.int64)
    ones = np.flatnonzero(x0).astype(np.int64)
    if isinstance(problem, CardinalityQP):
        g = problem.groups[ones]
        order = np.argsort(g, kind="stable")
        sizes = np.bincount(g, minlength=problem.n_groups)
        rank = np.empty(len(ones), np.int64)
        rank[order] = np.arange(len(ones)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        ones = ones[rank < problem.k[g]]
    return ones
