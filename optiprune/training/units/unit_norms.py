"""Norms of the units of a group, as functions of the weights that can be differentiated."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from optiprune.structure import Group
from optiprune.training.errors import TrainingError

__all__ = ["UnitNorms"]


@dataclass(frozen=True, slots=True, eq=False)
class _Slices:
    """Where the units of a group are in one parameter."""

    name: str
    parameter: nn.Parameter
    dim: int
    index: Tensor  # along dim
    unit: Tensor  # of each of these
    elements: Tensor  # of every unit, (units,)


class UnitNorms:
    """What the units of one group weigh in the parameters that make them.

    These are the rows of the layers' weights, biases, and the scales and shifts of norms, of all
    layers of the group: what a unit is multiplied with behind a batch norm alone would be free to
    grow again in the norm's scale.

    Parameters
    ----------
    model : which has the group
    group : of its structure

    Raises
    ------
    TrainingError
        No parameter of the model makes these units.
    """

    def __init__(self, model: nn.Module, group: Group) -> None:
        self.name, self.size = group.name, group.size
        named = dict(model.named_parameters(remove_duplicate=False))
        self._slices: list[_Slices] = []
        for m in group.members:
            if m.reads or m.tensor not in named:
                continue
            p = named[m.tensor]
            unit = [u for u, at in enumerate(m.indices) for _ in at]
            index = [int(i) for at in m.indices for i in at]
            each = p.numel() // p.shape[m.dim]
            unit_t = torch.tensor(unit, device=p.device)
            elements = torch.bincount(unit_t, minlength=group.size) * each
            index_t = torch.tensor(index, device=p.device)
            self._slices.append(_Slices(m.tensor, p, m.dim, index_t, unit_t, elements))
        if not self._slices:
            raise TrainingError(f"no parameter makes the units of group {group.name!r}")

    def mean_norms(self) -> Tensor:
        """(units,): the mean over the parameters of the Euclidean norm of a unit's part."""
        total: Tensor | float = 0.0
        for s in self._slices:
            squares = self._by_unit(s, s.parameter.square())
            # the gradient of a norm at zero is taken as zero
            total = total + squares.clamp_min(torch.finfo(squares.dtype).tiny).sqrt()
        assert isinstance(total, Tensor)
        return total / len(self._slices)

    @torch.no_grad()
    def average_weights(self) -> Tensor:
        """(units,), float64: the mean absolute value of all elements of a unit."""
        sums = sum(self._by_unit(s, s.parameter.detach().double().abs()) for s in self._slices)
        counts = sum(s.elements for s in self._slices)
        assert isinstance(sums, Tensor)
        assert isinstance(counts, Tensor)
        return sums / counts.clamp_min(1)

    def sums(self, values: Mapping[str, Tensor]) -> Tensor:
        """(units,): sums over a unit's elements of tensors that have the parameters' shapes.

        Parameters
        ----------
        values : parameter's name -> tensor of its shape
        """
        total: Tensor | float = 0.0
        for s in self._slices:
            total = total + self._by_unit(s, values[s.name])
        assert isinstance(total, Tensor)
        return total

    @torch.no_grad()
    def relative_quantiles(self, share: float) -> Tensor:
        """(units,), float64: the least t such that ``share`` of a unit's elements are at most t,
        in root mean squares of their tensors.

        The elements are those of weights of two and more dimensions, where there are any: biases
        and the scales of norms are of another kind. A unit without elements gives infinity.
        """
        weights = [s for s in self._slices if s.parameter.ndim > 1] or self._slices
        found: list[list[Tensor]] = [[] for _ in range(self.size)]
        for s in weights:
            values = s.parameter.detach().double().abs()
            scale = values.square().mean().sqrt()
            rows = (values / scale if scale > 0 else values).movedim(s.dim, 0).flatten(1)
            for index, unit in zip(s.index.tolist(), s.unit.tolist(), strict=True):
                found[unit].append(rows[index])
        out = torch.full((self.size,), torch.inf, dtype=torch.float64)
        for unit, parts in enumerate(found):
            if parts:
                row = torch.cat(parts).sort().values
                out[unit] = row[max(math.ceil(share * len(row)) - 1, 0)]
        return out

    def _by_unit(self, s: _Slices, values: Tensor) -> Tensor:
        rows = values.movedim(s.dim, 0).flatten(1).sum(1) if values.ndim > 1 else values
        return rows.new_zeros(self.size).index_add(0, s.unit, rows[s.index])
