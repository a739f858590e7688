"""What a model costs as a function of what is left of its groups.

A dimension of a tensor has some fixed indices and some of each group; a tensor has as many elements
as the product of its dimensions, and a layer as many multiply-adds as the product of three: rows,
columns, places. So every cost is a sum of such products, exact for any choice of units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Extent", "Kept", "Product", "Value", "kept_of", "total"]

Kept = Mapping[int, npt.NDArray[np.bool_]]


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """How many indices a dimension has.

    Attributes
    ----------
    fixed : indices that always stay
    counts : group's number -> how many indices each of its units has there, (units,)
    """

    fixed: int
    counts: Mapping[int, npt.NDArray[np.int64]]

    def size(self, kept: Kept) -> int:
        """With all units of groups that ``kept`` does not name."""
        out = self.fixed
        for g, n in self.counts.items():
            out += int(n[kept[g]].sum() if g in kept else n.sum())
        return out

    def renumbered(self, number: Mapping[int, int]) -> Extent:
        """With new numbers of the groups; those without one are fixed."""
        gone = sum(int(n.sum()) for g, n in self.counts.items() if g not in number)
        return Extent(
            self.fixed + gone, {number[g]: n for g, n in self.counts.items() if g in number}
        )


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """``coefficient`` times the sizes of some dimensions.

    Attributes
    ----------
    what : the tensor, or the module whose operation it is
    coefficient : a whole number, except where the parts of a dimension count by their mean
    extents : dimensions that groups are in; none for a constant
    """

    what: str
    coefficient: float
    extents: tuple[Extent, ...]

    def value(self, kept: Kept) -> float:
        out = self.coefficient
        for e in self.extents:
            out *= e.size(kept)
        return out

    def renumbered(self, number: Mapping[int, int]) -> Product:
        return Product(
            self.what, self.coefficient, tuple(e.renumbered(number) for e in self.extents)
        )


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A result of an operation: its bytes, and from which to which operation it is held."""

    bytes: Product
    born: int
    dies: int


def total(products: Sequence[Product], kept: Kept) -> float:
    return sum(p.value(kept) for p in products)


def kept_of(sizes: Sequence[int], removed: Mapping[int, Sequence[int]]) -> Kept:
    """group's number -> whether each of its units stays, for the groups that lose some."""
    out = {}
    for g, units in removed.items():
        stays = np.ones(sizes[g], dtype=bool)
        stays[list(units)] = False
        out[g] = stays
    return out
