"""The quadratic model of the loss over one batch of weights, and the problem that it makes."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.problems import CardinalityQP, ProblemError

__all__ = ["LocalQuadratic"]

Array = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True, eq=False)
class LocalQuadratic:
    """``m(d) = g'd + 1/2 d'Hd + 1/2 ridge |d|^2`` around the current weights of a batch.

    Attributes
    ----------
    w : (b,) values that kept weights take (a pruned weight is restored to its dense value)
    v : (b,) current values, 0 where pruned
    gradient : (b,) gradient g of the loss at the current weights
    H : (b, b) curvature, or None when ``factor`` is given
    factor : (N, b) per-sample gradients G with ``H = G'G / N``, or None
    ridge : rho >= 0

    Raises
    ------
    ProblemError
        On shapes that disagree, values that are not finite, both or neither of H and factor.
    """

    w: Array
    v: Array
    gradient: Array
    H: Array | None = None
    factor: Array | None = None
    ridge: float = 0.0

    def __post_init__(self) -> None:
        b = self.w.shape[0]
        if (self.H is None) == (self.factor is None):
            raise ProblemError("give either H or factor")
        shapes = {"w": self.w.shape, "v": self.v.shape, "gradient": self.gradient.shape}
        for name, shape in shapes.items():
            if shape != (b,):
                raise ProblemError(f"{name} must have shape ({b},), got {shape}")
        if self.H is not None and self.H.shape != (b, b):
            raise ProblemError(f"H must have shape ({b}, {b}), got {self.H.shape}")
        if self.factor is not None and (self.factor.ndim != 2 or self.factor.shape[1] != b):
            raise ProblemError(f"factor must have shape (N, {b}), got {self.factor.shape}")
        if not self.ridge >= 0:
            raise ProblemError(f"ridge must be >= 0, got {self.ridge}")

    @property
    def n(self) -> int:
        return int(self.w.shape[0])

    def change(self, delta: npt.ArrayLike) -> float:
        """Predicted change of the loss for a change ``delta`` of the weights, float64."""
        d = np.asarray(delta, dtype=np.float64)
        g = self.gradient.astype(np.float64)
        return float(g @ d + 0.5 * d @ self._curve(d) + 0.5 * self.ridge * (d @ d))

    def _curve(self, d: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """H d in float64."""
        if self.factor is not None:
            f = self.factor.astype(np.float64)
            return np.asarray(f.T @ (f @ d) / f.shape[0])
        assert self.H is not None
        return np.asarray(self.H.astype(np.float64) @ d)

    def problem(self, *, k: npt.ArrayLike, groups: npt.ArrayLike | None = None) -> CardinalityQP:
        """Which weights to keep: E(x) is the predicted change of loss at ``delta = w*x - v``.

        ``E(x) = 1/2 x'D(H + rho I)Dx + (D(g - (H + rho I)v))'x + const``, D = diag(w); the constant
        makes the energy of "as now" zero (exactly so when kept weights keep their values). Q is
        dense; formed from a factor it is float32, a product summed by BLAS.

        Parameters
        ----------
        k, groups : the budget, as in `CardinalityQP`
        """
        w = self.w.astype(np.float64)
        v = self.v.astype(np.float64)
        g = self.gradient.astype(np.float64)
        hv = self._curve(v)
        linear = w * (g - hv - self.ridge * v)
        offset = float(-(g @ v) + 0.5 * (v @ hv) + 0.5 * self.ridge * (v @ v))
        diagonal = 0.5 * self.ridge * w * w
        if self.factor is not None:
            scale = np.float32(1.0 / np.sqrt(2.0 * max(1, self.factor.shape[0])))
            f = np.ascontiguousarray(self.factor * (self.w * scale), dtype=np.float32)
            q = f.T @ f
        else:
            assert self.H is not None
            q = 0.5 * (self.H * w[:, None] * w[None, :])
        q[np.diag_indices(self.n)] += diagonal.astype(q.dtype)
        return CardinalityQP(q, linear, offset, k=k, groups=groups)
