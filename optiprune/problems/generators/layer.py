"""Layer reconstruction problems: which weights of one output neuron to keep.

min over masks x of ``||X (w o x) - X w||**2 / N`` for activations X (N, n) and a weight row w. The
activations are correlated, not centred, and a few features are outliers, as in trained networks:
that gives couplings of both signs, and weights that stand in for one another.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from optiprune.problems.binary import CardinalityQP
from optiprune.problems.errors import ProblemError
from optiprune.problems.matrix import FactoredMatrix, as_number
from optiprune.problems.miqp import MIQP

from .seeding import Seed, generator, positive, share

__all__ = ["layer_miqp", "layer_nm_problem", "layer_problem"]

_Array = npt.NDArray[np.float64]


def layer_problem(
    n: int,
    k: int,
    *,
    samples: int | None = None,
    correlation: float = 0.7,
    outliers: float = 0.02,
    factored: bool = False,
    seed: Seed = 0,
) -> CardinalityQP:
    """Keep k of the n weights of one row: energy = mean squared change of the output.

    Parameters
    ----------
    n, k : weights, and how many are kept
    samples : rows of X, 4 n by default; fewer than n make the Gram matrix singular
    correlation : 0 .. 1, share of the features' variance that comes from common factors
    outliers : 0 .. 1, share of features that are ten times as large
    factored : store ``X diag(w) / sqrt(N)`` as a factor instead of the dense matrix
    seed : int or SeedSequence

    All weights kept has energy 0 (within rounding).
    """
    X, w = _activations(n, samples, correlation, outliers, seed)
    return _mask_problem(X, w, factored, k=k, groups=None)


def layer_nm_problem(
    n: int,
    keep: int,
    of: int,
    *,
    samples: int | None = None,
    correlation: float = 0.7,
    outliers: float = 0.02,
    factored: bool = False,
    seed: Seed = 0,
) -> CardinalityQP:
    """N:M sparsity: of every ``of`` neighbours ``keep`` are kept (2:4 is keep=2, of=4).

    Raises `ProblemError` unless ``of`` divides n and 0 <= keep <= of; else as `layer_problem`.
    """
    positive("of", of)
    positive("keep", keep, 0)
    if n % of or keep > of:
        raise ProblemError(f"{keep}:{of} needs keep <= of and n divisible by {of}, got n = {n}")
    X, w = _activations(n, samples, correlation, outliers, seed)
    groups = np.arange(n) // of
    return _mask_problem(X, w, factored, k=np.full(n // of, keep), groups=groups)


def layer_miqp(
    n: int,
    k: int,
    *,
    samples: int | None = None,
    correlation: float = 0.7,
    outliers: float = 0.02,
    bound: float = np.inf,
    factored: bool = False,
    seed: Seed = 0,
) -> MIQP:
    """Mask and weights together: min ``||X u - X w||**2 / N`` over u with at most k non-zeros.

    ``bound`` times the largest |w| bounds each weight (M); inf for no bound. The other arguments,
    X and w are those of `layer_problem`: at the same seed, its energy of a mask is never lower.
    """
    if bound != np.inf and not as_number("bound", bound) > 0:
        raise ProblemError(f"bound must be positive, got {bound!r}")
    X, w = _activations(n, samples, correlation, outliers, seed)
    n_samples = len(X)
    # ||X u - X w||^2 / N = 1/2 u'(2G)u - (2 G w)'u + w'G w
    target = X @ w
    H: FactoredMatrix | _Array
    H = FactoredMatrix(X * np.sqrt(2.0 / n_samples)) if factored else 2.0 / n_samples * (X.T @ X)
    return MIQP(
        H,
        2.0 / n_samples * (X.T @ target),
        k=k,
        M=bound * np.abs(w).max(),
        offset=float(target @ target) / n_samples,
    )


def _mask_problem(
    X: _Array, w: _Array, factored: bool, *, k: npt.ArrayLike, groups: npt.ArrayLike | None
) -> CardinalityQP:
    # with F = X diag(w) / sqrt(N): ||F x - F 1||^2 = x'F'F x - 2 (F'F 1)'x + ||F 1||^2
    F = X * w / np.sqrt(len(X))
    out = F.sum(axis=1)
    Q = FactoredMatrix(F) if factored else F.T @ F
    return CardinalityQP(Q, -2.0 * (F.T @ out), float(out @ out), k=k, groups=groups)


def _activations(
    n: int, samples: int | None, correlation: float, outliers: float, seed: Seed
) -> tuple[_Array, _Array]:
    """X (N, n) and w (n,)."""
    positive("n", n)
    count = positive("samples", 4 * n if samples is None else samples)
    correlation, outliers = share("correlation", correlation), share("outliers", outliers)
    rng = generator(seed)
    n_factors = max(1, n // 8)
    loadings = rng.normal(size=(n_factors, n)) / np.sqrt(n_factors)
    common = rng.normal(size=(count, n_factors)) @ loadings
    own = rng.normal(size=(count, n))
    X = np.sqrt(correlation) * common + np.sqrt(1.0 - correlation) * own
    X = X + rng.normal(scale=0.3, size=n)  # features have means
    scale = np.exp(rng.normal(scale=0.5, size=n))
    loud = rng.permutation(n)[: round(outliers * n)]
    scale[loud] *= 10.0
    w = rng.normal(size=n) / np.sqrt(n)
    return X * scale, w
