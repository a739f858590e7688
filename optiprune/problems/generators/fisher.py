"""Global-loss problems: a low-rank empirical Fisher matrix, a gradient, and a current mask.

The model of the loss is ``g'd + 1/2 d'(G'G / N + ridge I) d`` at ``d = x o w - v``, with dense
values w, current values v (w where kept now, 0 where pruned) and per-sample gradients G (N, n),
N < n as a rule.
"""

from __future__ import annotations

import numpy as np

from optiprune.problems.binary import CardinalityQP
from optiprune.problems.errors import ProblemError
from optiprune.problems.matrix import FactoredMatrix, as_number

from .seeding import Seed, generator, positive, share

__all__ = ["fisher_problem"]


def fisher_problem(
    n: int,
    k: int,
    *,
    samples: int | None = None,
    ridge: float = 1e-3,
    gradient: float = 1.0,
    correlation: float = 0.5,
    seed: Seed = 0,
) -> tuple[CardinalityQP, np.ndarray[tuple[int], np.dtype[np.int8]]]:
    """A batch of n weights of which k are kept, and the current mask.

    Parameters
    ----------
    n, k : weights, and how many are kept (now, and in every feasible answer)
    samples : N, n // 2 by default; the rank of the Fisher matrix
    ridge : added to the curvature, relative to its mean diagonal
    gradient : factor on the mean gradient
    correlation : 0 .. 1, share of the gradients' variance that comes from common factors
    seed : int or SeedSequence

    Returns
    -------
    problem : CardinalityQP in factor form, rank N; ``energy`` is the predicted change of loss
    current : (n,) int8 mask with k ones, the k largest |w|; its energy is 0 (within rounding)
    """
    positive("n", n)
    if not 0 <= positive("k", k, 0) <= n:
        raise ProblemError(f"k must lie between 0 and {n}, got {k}")
    count = positive("samples", max(1, n // 2) if samples is None else samples)
    correlation, gradient = share("correlation", correlation), as_number("gradient", gradient)
    if (ridge := as_number("ridge", ridge)) < 0:
        raise ProblemError(f"ridge must be >= 0, got {ridge!r}")
    rng = generator(seed)
    n_factors = max(1, n // 8)
    loadings = rng.normal(size=(n_factors, n)) / np.sqrt(n_factors)
    G = np.sqrt(correlation) * rng.normal(size=(count, n_factors)) @ loadings
    G = G + np.sqrt(1.0 - correlation) * rng.normal(size=(count, n))
    # samples differ in loss, weights in sensitivity, by orders of magnitude
    G = G * np.exp(rng.normal(scale=1.0, size=(count, 1))) * np.exp(rng.normal(scale=0.5, size=n))
    # away from a minimum the mean gradient does not vanish
    G = G + 0.3 * np.abs(G).mean(axis=0) * rng.normal(size=n)
    w = 0.2 * rng.normal(size=n)
    current = np.zeros(n, dtype=np.int8)
    current[np.argsort(-np.abs(w), kind="stable")[:k]] = 1
    v = current * w
    g = gradient * G.mean(axis=0)
    rho = ridge * float((G * G).sum()) / (count * n)
    # E(x) = 1/2 x'D(H + rho)D x + (D(g - (H + rho)v))'x + 1/2 v'(H + rho)v - g'v
    curved = G.T @ (G @ v) / count + rho * v
    factor = G * w / np.sqrt(2.0 * count)
    problem = CardinalityQP(
        FactoredMatrix(factor, 0.5 * rho * w * w),
        w * (g - curved),
        0.5 * float(v @ curved) - float(g @ v),
        k=k,
    )
    return problem, current
