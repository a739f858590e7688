"""What removing units costs: an order in which the units of a group leave, and the best that stay.

Both objectives know two questions: in which order would the units of one group leave, so that
widths can be compared, and which units stay once all widths are known.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
from torch import Tensor

from optiprune.curvature import LayerGram
from optiprune.solvers import Solver, Stop

from .column_subset import ColumnSubset
from .low_energy import gate_problem, low_energy
from .masking import masked_weights
from .readers import Readers
from .systems import systems_of
from .ties import Ties
from .unit_fisher import UnitQuadratic

__all__ = ["GlobalObjective", "Objective", "ReconstructionObjective", "Step"]

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
Step = tuple[BoolArray, float, Mapping[str, Tensor]]
"""Units of a group that stay, the predicted damage, and the weights of layers that go with it."""


class Objective(Protocol):
    """What chooses units."""

    def steps(self, group: int, widths: Sequence[int]) -> list[Step]:
        """The group alone at falling widths, each of the units that the one before kept."""
        ...

    def choose(self, widths: Sequence[int], count: int) -> list[dict[int, BoolArray]]:
        """Up to ``count`` different choices at these widths, the best first: for every group that
        loses units those that stay."""
        ...


class GlobalObjective:
    """The change of the loss by the quadratic in gates, all groups in one problem.

    Parameters
    ----------
    solver, stop : of the problem with one cardinality for every part of a group
    """

    def __init__(
        self,
        quadratic: UnitQuadratic,
        readers: Readers,
        weights: Mapping[str, Tensor],
        ties: Ties,
        solver: Solver,
        stop: Stop | None,
        seed: np.random.SeedSequence,
    ) -> None:
        self.quadratic, self.readers, self.weights, self.ties = quadratic, readers, weights, ties
        self.solver, self.stop, self.seed = solver, stop, seed

    def steps(self, group: int, widths: Sequence[int]) -> list[Step]:
        readers = self.readers.of(group)
        return [
            (kept, damage, masked_weights(readers, self.weights, {group: kept}))
            for kept, damage in self._orders(group, widths)
        ]

    def _orders(self, group: int, widths: Sequence[int]) -> Iterator[tuple[BoolArray, float]]:
        """At falling widths the units that stay and the damage, the cheapest unit leaving first."""
        a, b = self.quadratic.starts[group], self.quadratic.starts[group + 1]
        H, g = self.quadratic.H[a:b, a:b], self.quadratic.g[a:b]
        kept = np.ones(b - a, dtype=bool)
        cost = 0.5 * np.diag(H) - g
        damage = 0.0
        parts = self.ties.parts(group)
        for width in widths:
            while kept.sum() > width:
                for part in parts:
                    here = part[kept[part]]
                    unit = int(here[np.argmin(cost[here])])
                    kept[unit] = False
                    damage += float(cost[unit])
                    cost = cost + H[unit]
            yield kept.copy(), damage

    def choose(self, widths: Sequence[int], count: int) -> list[dict[int, BoolArray]]:
        q = self.quadratic
        sizes = np.diff(q.starts)
        losing = [g for g, w in enumerate(widths) if w < sizes[g]]
        if not losing:
            return [{}]
        index = np.concatenate([np.arange(q.starts[g], q.starts[g + 1]) for g in losing])
        cells: list[IntArray] = []
        k: list[int] = []
        for g in losing:
            cells.append(self.ties.atoms[g] + len(k))
            k += [widths[g] // self.ties.step(g)] * self.ties.step(g)
        problem = gate_problem(
            q.g[index], q.H[np.ix_(index, index)], np.array(k), np.concatenate(cells)
        )
        start = np.concatenate([next(self._orders(g, [widths[g]]))[0] for g in losing])
        start = start.astype(np.int8)
        ranked = low_energy(problem, self.solver, self.stop, start, self.seed, count)
        ends = np.cumsum([sizes[g] for g in losing])
        return [dict(zip(losing, np.split(x.astype(bool), ends[:-1]), strict=True)) for x in ranked]


class ReconstructionObjective:
    """The error of the layers that read a group, with what stays fitted again; a group at a time.

    Parameters
    ----------
    grams : of all readers' inputs in the dense model
    damping : of the fit, in mean diagonals of the Gram matrix
    exchanges : at most, for every part of a group
    """

    def __init__(
        self,
        sizes: Sequence[int],
        readers: Readers,
        weights: Mapping[str, Tensor],
        grams: Mapping[str, LayerGram],
        ties: Ties,
        *,
        damping: float,
        exchanges: int,
    ) -> None:
        self.sizes, self.readers, self.weights = sizes, readers, weights
        self.grams, self.ties, self.damping, self.exchanges = grams, ties, damping, exchanges

    def steps(self, group: int, widths: Sequence[int]) -> list[Step]:
        subset = self._subset(group)
        out: list[Step] = []
        for width in widths:
            self._narrow(subset, group, width)
            out.append((subset.kept.copy(), subset.error(), self._fitted(group, subset)))
        return out

    def choose(self, widths: Sequence[int], count: int) -> list[dict[int, BoolArray]]:
        before: dict[int, BoolArray] = {}
        after: dict[int, BoolArray] = {}
        for g, width in enumerate(widths):
            if width == self.sizes[g]:
                continue
            subset = self._subset(g)
            self._narrow(subset, g, width)
            before[g] = subset.kept.copy()
            subset.exchange(self.exchanges, self.ties.parts(g))
            after[g] = subset.kept.copy()
        different = any((before[g] != after[g]).any() for g in after)
        return [after, before][:count] if different else [after]

    def _subset(self, group: int) -> ColumnSubset:
        size = self.sizes[group]
        systems = systems_of(group, size, self.readers, self.weights, self.grams, self.damping)
        return ColumnSubset(systems, size)

    def _narrow(self, subset: ColumnSubset, group: int, width: int) -> None:
        parts = self.ties.parts(group)
        while subset.kept.sum() > width:
            for part in parts:
                allowed = np.zeros_like(subset.kept)
                allowed[part] = True
                subset.remove_cheapest(allowed)

    def _fitted(self, group: int, subset: ColumnSubset) -> dict[str, Tensor]:
        systems = iter(subset.systems)
        out = {}
        for reader in self.readers.of(group):
            name, layer = reader.layer.parameter, reader.layer
            weight = self.weights[name].detach()
            rows = weight.reshape(layer.groups, -1, layer.cols).double().clone()
            for k in range(layer.groups):
                inside = reader.group[k * layer.shape[1] : (k + 1) * layer.shape[1]]
                if (inside == group).any():
                    rows[k] = rows.new_tensor(next(systems).B.T)
            out[name] = rows.to(weight.dtype).reshape(weight.shape)
        return out
