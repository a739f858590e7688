"""Sizes of a traced model's parameters, products and results, in terms of its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from torch import Tensor, fx, nn

from .context import Work
from .factors import Factor, Labels
from .propagate import Propagated
from .sizes import Extent, Product, Value
from .trace import Trace
from .units import Ids, Units

__all__ = ["Measure"]


class Measure:
    """Turns labels into sizes.

    Parameters
    ----------
    place : class of units -> (group's number, unit)
    sizes : units of every group
    """

    def __init__(
        self, units: Units, place: Mapping[int, tuple[int, int]], sizes: Sequence[int]
    ) -> None:
        self._units = units
        self._place = place
        self._sizes = sizes

    def extent(self, ids: Ids) -> Extent:
        fixed = 0
        counts: dict[int, Ids] = {}
        roots, times = np.unique(self._units.roots(ids.ravel()), return_counts=True)
        for root, n in zip(roots.tolist(), times.tolist(), strict=True):
            at = self._place.get(root)
            if at is None:
                fixed += n
            else:
                g, unit = at
                counts.setdefault(g, np.zeros(self._sizes[g], dtype=np.int64))[unit] += n
        return Extent(fixed, counts)

    def product(self, what: str, coefficient: float, ids: Sequence[Ids]) -> Product:
        extents = []
        for i in ids:
            e = self.extent(i)
            if e.counts:
                extents.append(e)
            else:
                coefficient *= e.fixed
        return Product(what, coefficient, tuple(extents))

    def elements(self, what: str, labels: Labels, each: float = 1.0) -> Product:
        spanned = {d for f in labels.factors for d in f.dims}
        for d, n in enumerate(labels.shape):
            each *= 1 if d in spanned else n
        return self.product(what, each, [f.ids for f in labels.factors])

    def multiply_adds(self, work: Sequence[Work]) -> tuple[Product, ...]:
        return tuple(self.product(w.module, w.coefficient, w.ids) for w in work)

    def parameters(self, model: nn.Module, traced: Trace, found: Propagated) -> tuple[Product, ...]:
        """Every parameter once, also those that the model does not use."""
        grouped = {c.weight: c.ids for c in found.relations.columns}
        by_name: dict[str, tuple[str, Labels]] = {}
        for placeholder, labels in found.holders.items():
            by_name.update((n, (placeholder, labels)) for n in traced.holders[placeholder])
        out = []
        for name, p in model.named_parameters():
            if name not in by_name:
                out.append(Product(name, float(p.numel()), ()))
                continue
            placeholder, labels = by_name[name]
            columns = grouped.get(placeholder)
            if columns is None:
                out.append(self.elements(name, labels))
                continue
            # every group of the convolution has as many columns: the mean over the groups
            own = labels.at(1)
            rest = labels if own is None else labels.without(own)
            plain = self.elements(
                name, Labels((labels.shape[0], *labels.shape[2:]), _shifted(rest))
            )
            extent = self.extent(columns)
            out.append(Product(name, plain.coefficient / len(columns), (*plain.extents, extent)))
        return tuple(out)

    def values(self, traced: Trace, found: Propagated) -> tuple[Value, ...]:
        """Results that are no views; a view holds what it is a view of."""
        place = {node.name: i for i, node in enumerate(traced.graph.nodes)}
        last: dict[str, int] = {}
        for node in reversed(list(traced.graph.nodes)):
            last[node.name] = max(
                [place[u.name] for u in node.users]
                + [last[u.name] for u in node.users if u.name not in found.results],
                default=place[node.name],
            )
        out = []
        for node in traced.graph.nodes:
            for labels, t in zip(found.results.get(node.name, ()), _tensors(node), strict=False):
                size = self.elements(node.name, labels, float(t.element_size()))
                out.append(Value(size, place[node.name], last[node.name]))
        return tuple(out)


def _shifted(labels: Labels) -> tuple[Factor, ...]:
    """Factors after dimension 1 was taken out."""
    return tuple(Factor(tuple(d - (d > 1) for d in f.dims), f.ids) for f in labels.factors)


def _tensors(node: fx.Node) -> list[Tensor]:
    value = node.meta.get("val")
    return [
        v for v in (value if isinstance(value, tuple | list) else [value]) if isinstance(v, Tensor)
    ]
