"""Which units the elements of a tensor belong to, dimension by dimension.

A tensor's labels are a few *factors*, each an array of units over some of its dimensions: the
weight of a linear layer has one over its rows and one over its columns, an activation (batch, time,
width) one over its width; after the width was split into heads that factor spans two dimensions.
An element leaves with any of its units. Dimensions in no factor keep their size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .units import FIXED, Ids

__all__ = ["Factor", "Labels", "ReshapeError"]


class ReshapeError(ValueError):
    """Two factors would share a dimension."""


@dataclass(frozen=True, slots=True, eq=False)
class Factor:
    """Units over some dimensions of a tensor.

    Attributes
    ----------
    dims : ascending
    ids : of the tensor's shape in these dimensions
    """

    dims: tuple[int, ...]
    ids: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Labels:
    """A tensor as its shape and its factors, which share no dimension."""

    shape: tuple[int, ...]
    factors: tuple[Factor, ...] = ()

    def __post_init__(self) -> None:
        seen: set[int] = set()
        for f in self.factors:
            assert f.ids.shape == tuple(self.shape[d] for d in f.dims), (self.shape, f)
            assert not seen & set(f.dims)
            seen |= set(f.dims)

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def at(self, dim: int) -> Factor | None:
        """The factor that spans a dimension."""
        dim %= max(1, self.ndim)
        return next((f for f in self.factors if dim in f.dims), None)

    def without(self, *gone: Factor) -> Labels:
        return Labels(self.shape, tuple(f for f in self.factors if all(f is not g for g in gone)))

    def replaced(self, old: Factor, *new: Factor) -> Labels:
        return Labels(self.shape, (*self.without(old).factors, *new))

    def permuted(self, order: Sequence[int]) -> Labels:
        """``order[i]`` is the old place of the new dimension i."""
        order = [d % self.ndim for d in order]
        place = {old: new for new, old in enumerate(order)}
        factors = []
        for f in self.factors:
            dims = [place[d] for d in f.dims]
            axes = sorted(range(len(dims)), key=dims.__getitem__)
            factors.append(Factor(tuple(sorted(dims)), f.ids.transpose(axes)))
        return Labels(tuple(self.shape[d] for d in order), tuple(factors))

    def taken(self, dim: int, index: int) -> Labels:
        """One index of a dimension, which is gone then; units over it alone must not be lost."""
        dim %= self.ndim
        assert all(f.dims != (dim,) for f in self.factors), (self.shape, dim)
        factors = []
        for f in self.factors:
            ids = np.take(f.ids, index, f.dims.index(dim)) if dim in f.dims else f.ids
            dims = tuple(d - (d > dim) for d in f.dims if d != dim)
            factors.append(Factor(dims, ids))
        return Labels(self.shape[:dim] + self.shape[dim + 1 :], tuple(factors))

    def sliced(self, dim: int, index: slice | Ids) -> Labels:
        """Some indices of a dimension, in the order given."""
        dim %= self.ndim
        size = len(np.arange(self.shape[dim])[index])
        factors = []
        for f in self.factors:
            ids = f.ids
            if dim in f.dims:
                axis = f.dims.index(dim)
                ids = ids[(slice(None),) * axis + (index,)]
            factors.append(Factor(f.dims, ids))
        return Labels((*self.shape[:dim], size, *self.shape[dim + 1 :]), tuple(factors))

    def inserted(self, dim: int) -> Labels:
        """A dimension of size 1 before ``dim`` of the result."""
        dim %= self.ndim + 1
        factors = (Factor(tuple(d + (d >= dim) for d in f.dims), f.ids) for f in self.factors)
        return Labels((*self.shape[:dim], 1, *self.shape[dim:]), tuple(factors))

    def followed_by(self, places: int) -> Labels:
        """With dimensions of size 1 behind its own, as a bias stands before places."""
        return Labels((*self.shape, *[1] * places), self.factors)

    def broadcast(self, shape: Sequence[int]) -> Labels:
        """As `torch.broadcast_to`, for dimensions without units: a unit is not stretched."""
        lead = len(shape) - self.ndim
        assert all(self.shape[d] == shape[d + lead] for f in self.factors for d in f.dims)
        factors = (Factor(tuple(d + lead for d in f.dims), f.ids) for f in self.factors)
        return Labels(tuple(shape), tuple(factors))

    def mixed(self, shape: Sequence[int]) -> list[int]:
        """Dimensions that a reshape would merge although they have units of two kinds."""
        out: list[int] = []
        for old, _ in _runs(self.shape, tuple(shape)):
            here = [f for f in self.factors if set(f.dims) & set(old)]
            if len(here) > 1:
                out += [d for d in old if self.at(d) is not None]
        return out

    def reshaped(self, shape: Sequence[int]) -> Labels:
        """As `torch.reshape`: a factor goes with the dimensions that are split and merged.

        Raises
        ------
        ReshapeError
            Dimensions of two factors would be merged.
        """
        runs = _runs(self.shape, tuple(shape))
        factors = []
        for old, _ in runs:
            if len([f for f in self.factors if set(f.dims) & set(old)]) > 1:
                raise ReshapeError(f"{self.shape} -> {tuple(shape)} mixes units of two kinds")
        for f in self.factors:
            touched = [(old, new) for old, new in runs if set(f.dims) & set(old)]
            before = [d for old, _ in touched for d in old]
            ids = f.ids.reshape([self.shape[d] if d in f.dims else 1 for d in before])
            ids = np.broadcast_to(ids, [self.shape[d] for d in before])
            dims = [d for _, new in touched for d in new]
            ids = ids.reshape([shape[d] for d in dims])
            for axis in reversed(range(len(dims))):
                # along which nothing changes: no unit of its own
                if len(dims) > 1 and (ids == np.take(ids, [0], axis)).all():
                    ids = np.take(ids, 0, axis)
                    del dims[axis]
            factors.append(Factor(tuple(dims), ids))
        return Labels(tuple(shape), tuple(factors))


def joined(parts: Sequence[Labels], dim: int) -> Labels:
    """As `torch.cat` of parts whose other factors are alike: those of the first are kept.

    Raises
    ------
    ReshapeError
        Along ``dim`` the parts have factors over different dimensions.
    """
    dim %= parts[0].ndim
    size = sum(p.shape[dim] for p in parts)
    shape = (*parts[0].shape[:dim], size, *parts[0].shape[dim + 1 :])
    factors = [f for f in parts[0].factors if dim not in f.dims]
    here = [p.at(dim) for p in parts]
    spans = {f.dims for f in here if f is not None}
    if len(spans) > 1:
        raise ReshapeError(f"parts of a cat along {dim} have units over {sorted(spans)}")
    if spans:
        dims = next(iter(spans))
        axis = dims.index(dim)
        ids = [
            f.ids if f is not None else np.full([p.shape[d] for d in dims], FIXED, dtype=np.int64)
            for p, f in zip(parts, here, strict=True)
        ]
        factors.append(Factor(dims, np.concatenate(ids, axis)))
    return Labels(shape, tuple(factors))


def _runs(
    old: tuple[int, ...], new: tuple[int, ...]
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The shortest runs of old and new dimensions that hold the same elements."""
    out = []
    i = j = 0
    while i < len(old) or j < len(new):
        a, b = [], []
        m = n = 1
        if i < len(old):
            a, m, i = [i], old[i], i + 1
        if j < len(new):
            b, n, j = [j], new[j], j + 1
        while m != n:
            if m < n:
                a, m, i = [*a, i], m * old[i], i + 1
            else:
                b, n, j = [*b, j], n * new[j], j + 1
        out.append((tuple(a), tuple(b)))
    return out
