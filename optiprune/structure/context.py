"""What a rule may do to the units of the tensors that an operation reads."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, fx

from .factors import Factor, Labels
from .trace import operation_of, place_of
from .units import Barrier, Ids, Units

__all__ = ["Columns", "Context", "Relations", "Work"]


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """The columns of a grouped convolution's weight: group g has its own unit for each.

    Attributes
    ----------
    weight : its placeholder
    ids : (groups, columns)
    """

    weight: str
    ids: Ids


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """Multiply-adds of one operation: ``coefficient`` times the lengths of ``ids``."""

    module: str
    coefficient: float
    ids: tuple[Ids, ...]


@dataclass(slots=True)
class Relations:
    """What the operations ask for beyond classes.

    Attributes
    ----------
    balanced : arrays (parts, units): every part must keep as many of its units as the others
    columns : of grouped convolutions
    joint : units over several dimensions, after a reshape: they leave so that a box is left
    read : units of the dimensions of parameters that a product sums over: columns of weights
    tables : units of buffers
    kinds : what units are called, where the operations tell
    work : multiply-adds
    """

    balanced: list[tuple[Ids, Barrier]] = field(default_factory=list)
    columns: list[Columns] = field(default_factory=list)
    joint: list[Ids] = field(default_factory=list)
    read: set[int] = field(default_factory=set)
    tables: set[int] = field(default_factory=set)
    kinds: dict[int, str] = field(default_factory=dict)
    work: list[Work] = field(default_factory=list)


@dataclass(slots=True)
class Context:
    """One operation of the graph and the units met so far."""

    units: Units
    relations: Relations
    node: fx.Node

    def shape(self) -> tuple[int, ...]:
        """Of the operation's only or first result."""
        value = self.node.meta["val"]
        if not isinstance(value, Tensor):
            value = value[0]
        return tuple(int(n) for n in value.shape)

    @property
    def operation(self) -> str:
        """Its name without namespace and overload."""
        return operation_of(self.node)

    def because(self, reason: str) -> Barrier:
        return place_of(self.node, reason)

    def hold(self, labels: Labels, reason: str) -> None:
        """Nothing of this tensor may leave."""
        for f in labels.factors:
            self.units.hold(f.ids, self.because(reason))

    def fix(self, labels: Labels, dim: int, reason: str) -> Labels:
        """A dimension keeps its size: its units stay, or leave only all along it."""
        if labels.ndim == 0:
            return labels
        dim %= labels.ndim
        f = labels.at(dim)
        if f is None:
            return labels
        if f.dims == (dim,):
            self.units.hold(f.ids, self.because(reason))
            return labels.without(f)
        axis = f.dims.index(dim)
        ids = self.units.merge_along(f.ids, axis)
        return labels.replaced(f, Factor(f.dims[:axis] + f.dims[axis + 1 :], ids))

    def fix_all(self, labels: Labels, dims: Iterable[int], reason: str) -> Labels:
        for dim in dims:
            labels = self.fix(labels, dim, reason)
        return labels

    def stretched(self, labels: Labels, shape: Sequence[int]) -> Labels:
        """As `torch.broadcast_to`: a single index that serves many stays."""
        lead = len(shape) - labels.ndim
        for d in range(labels.ndim):
            if labels.shape[d] != shape[d + lead]:
                labels = self.fix(labels, d, "its one index serves many")
        return labels.broadcast(shape)

    def balance(self, parts: Ids, reason: str) -> None:
        """Rows of ``parts`` keep equally many of their units."""
        if len(parts) > 1:
            self.relations.balanced.append((parts, self.because(reason)))

    def name(self, ids: Ids, kind: str) -> None:
        """What a user calls these units, unless it is known already."""
        for unit in np.unique(ids).tolist():
            self.relations.kinds.setdefault(unit, kind)

    def count(self, out: Labels, summed: Factor | None, times: float, *more: Factor) -> None:
        """Multiply-adds: ``times`` for every element of a result and index that is summed over.

        ``times`` counts the indices where no units are summed over. Sums over several dimensions
        have ``more`` than one factor.
        """
        spanned = {d for f in out.factors for d in f.dims}
        for d, n in enumerate(out.shape):
            times *= 1 if d in spanned else n
        ids = [f.ids for f in out.factors]
        if summed is not None:
            ids += [f.ids for f in (summed, *more)]
        module = self.because("").module
        self.relations.work.append(Work(module, times, tuple(i.ravel() for i in ids)))

    def meet(self, operands: Sequence[Labels], reason: str) -> Labels:
        """Element by element, as an addition: units at one place are one class.

        A dimension that one operand spans without units keeps its size in all of them.
        """
        shape = np.broadcast_shapes(*(x.shape for x in operands))
        wide = [self.stretched(x, shape) for x in operands]
        spans = [
            {
                d + len(shape) - x.ndim
                for d in range(x.ndim)
                if x.shape[d] == shape[d + len(shape) - x.ndim] and x.shape[d] > 1
            }
            for x in operands
        ]
        dims = range(len(shape))
        changed = True
        while changed:
            changed = False
            for d in dims:
                here = [k for k in range(len(wide)) if d in spans[k]]
                found = [wide[k].at(d) for k in here]
                some = [f for f in found if f is not None]
                if not some:
                    continue
                if len(some) < len(found):
                    for k in here:
                        wide[k] = self.fix(wide[k], d, reason)
                    changed = True
                    continue
                wider = any(len(f.dims) > 1 for f in some)
                table = [k for k in here if wider and self._is_table(wide[k].at(d))]
                if table:  # of angles, of positions: it does not lose what the others may
                    for k in table:
                        wide[k] = self.fix(wide[k], d, reason)
                    changed = True
                    continue
                common = set.intersection(*(set(f.dims) for f in some))
                for k in here:
                    f = wide[k].at(d)
                    while f is not None and set(f.dims) != common:
                        extra = next(x for x in f.dims if x not in common)
                        wide[k] = self.fix(wide[k], extra, reason)
                        f, changed = wide[k].at(d), True
        factors: dict[tuple[int, ...], Factor] = {}
        for x in wide:
            for f in x.factors:
                first = factors.setdefault(f.dims, f)
                if first is not f:
                    self.units.merge(first.ids, f.ids)
        return Labels(tuple(shape), tuple(factors.values()))

    def _is_table(self, f: Factor | None) -> bool:
        return f is not None and set(f.ids.ravel().tolist()) <= self.relations.tables
