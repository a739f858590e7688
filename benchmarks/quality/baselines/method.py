"""What a layer-wise baseline is given, and what it gives back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from .moments import LayerMoments

__all__ = ["BaselineError", "LayerBudget", "LayerMethod", "checked_weight"]

Scope = Literal["row", "layer"]


class BaselineError(ValueError):
    """A baseline cannot be run as asked; the message says which argument and why."""


@dataclass(frozen=True)
class LayerBudget:
    """How many weights of a layer may be kept, and where.

    Attributes
    ----------
    density : share of the weights kept, 0 .. 1
    pattern : (N, M): exactly N of every M consecutive weights of a row are kept, N / M the density;
        None: unstructured
    scope : "row": ``round(density * cols)`` in every row; "layer": ``round(density * numel)`` in
        the layer, wherever they are (the same thing under a pattern)

    Raises
    ------
    BaselineError
        On a density outside 0 .. 1, a pattern that is none, another density than the pattern's, or
        an unknown scope.
    """

    density: float
    pattern: tuple[int, int] | None = None
    scope: Scope = "row"

    def __post_init__(self) -> None:
        if not 0.0 <= self.density <= 1.0:  # refuses NaN too
            raise BaselineError(f"density must be in 0 .. 1, got {self.density!r}")
        if self.scope not in ("row", "layer"):
            raise BaselineError(f"scope must be 'row' or 'layer', got {self.scope!r}")
        if self.pattern is not None:
            n, m = self.pattern
            if not 0 <= n <= m or m < 1:
                raise BaselineError(f"pattern must be N of M with 0 <= N <= M, got {n}:{m}")
            if abs(self.density - n / m) > 1e-9:
                raise BaselineError(
                    f"density {self.density} is not that of the pattern {n}:{m}; give {n / m}"
                )

    @classmethod
    def of_pattern(cls, n: int, m: int) -> LayerBudget:
        """N:M with its own density."""
        return cls(n / m if m else 0.0, (n, m))

    def require_fits(self, cols: int, name: str = "the layer") -> None:
        """Raise `BaselineError` if rows of ``cols`` weights cannot hold the pattern."""
        if self.pattern is not None and cols % self.pattern[1]:
            n, m = self.pattern
            raise BaselineError(
                f"{name} has {cols} weights in a row, which {m} does not divide: pattern {n}:{m} "
                "does not fit; leave the layer out"
            )

    def kept(self, rows: int, cols: int) -> int:
        """Weights kept in a layer of that shape."""
        if self.pattern is not None:
            return rows * (cols // self.pattern[1]) * self.pattern[0]
        if self.scope == "row":
            return rows * round(self.density * cols)
        return round(self.density * rows * cols)


class LayerMethod(Protocol):
    """A one-shot method that prunes one layer from the second moments of its inputs.

    Attributes
    ----------
    name : as in tables
    moves_weights : False: kept weights keep their dense values
    paper_scope : the scope that the paper compares within
    reference : authors, year, arXiv number
    """

    @property
    def name(self) -> str: ...
    @property
    def moves_weights(self) -> bool: ...
    @property
    def paper_scope(self) -> Scope: ...
    @property
    def reference(self) -> str: ...

    def prune(
        self, moments: LayerMoments, weight: Tensor, budget: LayerBudget
    ) -> tuple[Tensor, Tensor]:
        """Mask (rows, cols) bool and values (rows, cols) float64, zero off the mask.

        ``weight`` is the dense layer, (rows, cols); row r meets the inputs of group
        ``r // (rows // groups)``. Raises `BaselineError` if shapes, values or pattern do not fit.
        """
        ...


def checked_weight(moments: LayerMoments, weight: Tensor, budget: LayerBudget) -> Tensor:
    """The weight in float64, once everything fits together; raises `BaselineError` if not."""
    if weight.ndim != 2 or weight.shape[1] != moments.cols or weight.shape[0] % moments.groups:
        raise BaselineError(
            f"weight must have shape (a multiple of {moments.groups}, {moments.cols}), got "
            f"{tuple(weight.shape)}"
        )
    if not bool(torch.isfinite(weight).all()):
        bad = int((~torch.isfinite(weight)).sum())
        raise BaselineError(f"{bad} weights are NaN or infinite; repair or leave out the layer")
    if weight.device != moments.H.device:
        raise BaselineError(f"weight is on {weight.device}, its moments on {moments.H.device}")
    budget.require_fits(moments.cols)
    return weight.detach().to(torch.float64)
