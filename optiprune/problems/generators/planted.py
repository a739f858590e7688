"""Problems whose optimum is known by construction, and not by looking.

Frustrated loops (Hen et al., Phys. Rev. A 92, 042325, 2015): draw an assignment x*, in spins s*.
Add up many short loops of couplings, each with one bond turned against the others. No assignment
satisfies a whole loop; the best violates its weakest bond alone, and the loops are turned (gauged)
so that s* is one of the best for each. The sum is then minimal at s*, with the sum of the minima as
its energy. At the default number of loops, steepest descent from 1000 random starts found the
optimum in 17 % of them at n = 30, 2 % at n = 60, none at n = 100. Coefficients are integers, so
energies are exact in floating point.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from optiprune.problems.binary import QUBO, CardinalityQP
from optiprune.problems.ising import Ising, from_ising

from .seeding import Seed, generator, positive

__all__ = ["Planted", "planted_cardinality", "planted_qubo"]


class Planted(NamedTuple):
    """A problem, an assignment that is optimal, and its energy (exact)."""

    problem: QUBO | CardinalityQP
    x: npt.NDArray[np.int8]
    energy: float


def planted_qubo(
    n: int, *, loops: int | None = None, length: int = 4, spread: int = 4, seed: Seed = 0
) -> Planted:
    """A QUBO with a known minimum.

    Parameters
    ----------
    n : number of variables
    loops : number of loops, 3 n / 5 by default; far fewer or far more are easier
    length : variables in a loop, >= 3, cut to n
    spread : loop couplings are integers in 1 .. spread
    seed : int or SeedSequence

    Raises `ProblemError` on a value out of range.
    """
    rng = generator(seed)
    positive("n", n)
    x = rng.integers(0, 2, n).astype(np.int8)
    q = _plant(rng, x, loops, length, spread)
    return Planted(q, x, q.energy(x))


def planted_cardinality(
    n: int,
    k: npt.ArrayLike,
    *,
    groups: npt.ArrayLike | None = None,
    loops: int | None = None,
    length: int = 4,
    spread: int = 4,
    seed: Seed = 0,
) -> Planted:
    """A CardinalityQP with a known optimum, where the constraint matters.

    x* holds k ones (in each group) and minimises the planted QUBO over all assignments, thus over
    the feasible ones too. Then terms are added that are constant on feasible assignments only:
    ``(sum_{i in g} x_i - k_g) (a'x + m)`` with random integers a and m for each group. They leave
    every feasible energy as it was, and as a rule move the minimum over all assignments away
    from x*.

    Parameters
    ----------
    k, groups : as in `CardinalityQP`
    loops, length, spread, seed : as in `planted_qubo`

    Raises
    ------
    ProblemError, InfeasibleProblemError
        On a value out of range, a k that cannot be met.
    """
    rng = generator(seed)
    positive("n", n)
    frame = CardinalityQP(np.zeros((n, n)), k=k, groups=groups)  # validates k and groups
    x = np.zeros(n, dtype=np.int8)
    for g, ones in enumerate(frame.k.tolist()):
        members = np.flatnonzero(frame.groups == g)
        x[rng.choice(members, size=ones, replace=False)] = 1
    base = _plant(rng, x, loops, length, spread)
    q = np.array(base.dense(np.float64))
    linear = np.array(base.linear, dtype=np.float64)
    offset = base.offset
    for g, ones in enumerate(frame.k.tolist()):
        inside = (frame.groups == g).astype(np.float64)
        a = rng.integers(-spread, spread + 1, n).astype(np.float64)
        m = float(rng.choice([-1, 1]) * rng.integers(4 * spread, 8 * spread + 1))
        # (inside'x - k)(a'x + m)
        q += (np.outer(inside, a) + np.outer(a, inside)) / 2
        linear += m * inside - ones * a
        offset -= ones * m
    problem = CardinalityQP(q, linear, offset, k=frame.k, groups=frame.groups)
    return Planted(problem, x, problem.energy(x))


def _plant(
    rng: np.random.Generator,
    x: npt.NDArray[np.int8],
    loops: int | None,
    length: int,
    spread: int,
) -> QUBO:
    """The QUBO of random frustrated loops that are each minimal at x."""
    n = len(x)
    count = positive("loops", max(1, 3 * n // 5) if loops is None else loops)
    length = min(positive("length", length, 3), n)
    positive("spread", spread)
    J = np.zeros((n, n))
    for _ in range(count if n > 1 else 0):
        at = rng.choice(n, size=length, replace=False)
        weight = np.sort(rng.integers(1, spread + 1, length))
        # all bonds want equal spins but the weakest, so equal spins are the best for this loop
        weight[1:] *= -1
        np.add.at(J, (at, np.roll(at, -1)), weight)
    target = 2.0 * x - 1.0
    J = (J + J.T) * np.outer(target, target)
    # one field for the planted spin of one variable: without it, -s* would be as good as s*
    h = np.zeros(n)
    one = int(rng.integers(n))
    h[one] = -target[one]
    return from_ising(Ising(J, h))
