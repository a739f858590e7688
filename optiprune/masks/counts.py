"""How much a mask set keeps, parameter by parameter."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MaskCount"]


@dataclass(frozen=True, slots=True)
class MaskCount:
    """Kept weights of one parameter.

    Attributes
    ----------
    name, shape : the parameter
    kept, total : numbers of weights
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    total: int

    @property
    def density(self) -> float:
        """Kept over total; 1.0 for a parameter without weights (nothing is pruned)."""
        return self.kept / self.total if self.total else 1.0

    @property
    def sparsity(self) -> float:
        """Pruned over total: 1 - density."""
        return 1.0 - self.density
