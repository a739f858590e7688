"""A layer without the rows and columns of zeros that other layers keep it from losing.

Where an addition meets branches that lost different channels, the channels of both stay in the
model. Inside a branch they need not: a layer can read some channels of its input (a gather), and
make some of its output's, the others being its biases (a scatter). Which way of scattering is
fastest differs between machines and sizes, so all are measured.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from optiprune.structure.timing import Measure

from .candidates import FormError, Seen, require_plain

__all__ = ["Gather", "Scatter", "compact_forms"]

_KINDS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
Way = Literal["index_add", "index_copy", "gather"]
_WAYS: tuple[Way, ...] = ("index_add", "index_copy", "gather")


class Gather(nn.Module):
    """Some channels of a tensor, in order.

    Parameters
    ----------
    index : (channels that are taken,) int64
    axis : of the channels, counted from the end: -1 for linear layers
    """

    index: Tensor

    def __init__(self, index: Tensor, axis: int) -> None:
        super().__init__()
        self.axis = axis
        self.register_buffer("index", index)

    def forward(self, x: Tensor) -> Tensor:
        return x.index_select(self.axis, self.index)


class Scatter(nn.Module):
    """Channels put in their places among others that are constants.

    Parameters
    ----------
    index : (channels that come in,) int64, where each goes
    fill : (channels,) the constants; 0 at the places of ``index``
    axis : as in `Gather`
    way : "index_add" onto the constants, "index_copy" into them, or "gather" from the channels and
        the constants, joined
    """

    index: Tensor
    fill: Tensor
    order: Tensor

    def __init__(self, index: Tensor, fill: Tensor, axis: int, way: Way) -> None:
        super().__init__()
        self.axis, self.way = axis, way
        self.register_buffer("index", index)
        fill = fill.reshape(-1, *[1] * (-axis - 1))
        if way == "gather":
            rest = torch.ones(len(fill), dtype=torch.bool, device=fill.device)
            rest[index] = False
            order = torch.empty(len(fill), dtype=torch.int64, device=fill.device)
            order[index] = torch.arange(len(index), device=fill.device)
            order[rest] = torch.arange(len(index), len(fill), device=fill.device)
            fill = fill[rest]
            self.register_buffer("order", order)
        self.register_buffer("fill", fill)

    def forward(self, x: Tensor) -> Tensor:
        shape = list(x.shape)
        shape[self.axis] = len(self.fill)
        whole = self.fill.to(x.dtype).expand(shape)
        if self.way == "index_add":
            return whole.index_add(self.axis, self.index, x)
        if self.way == "index_copy":
            return whole.index_copy(self.axis, self.index, x)
        return torch.cat([x, whole], self.axis).index_select(self.axis, self.order)


def compact_forms(layer: nn.Module, seen: Sequence[Seen], measure: Measure) -> nn.Module:
    """The fastest form of a linear layer or convolution without its rows and columns of zeros.

    Gathering and scattering cost time as well: the layer without its columns, without its rows,
    and without both are measured, each way of scattering.

    Parameters
    ----------
    layer : of one group, left as it is
    seen : what it reads
    measure : times two computations

    Raises
    ------
    FormError
        It has no row or column of zeros; it is of another class, or of several groups; nothing of
        it would be left.
    """
    require_plain(layer, _KINDS)
    if isinstance(layer, _ConvNd) and layer.groups > 1:
        raise FormError("it is a convolution of several groups")
    weight: Tensor = layer.weight.detach()  # type: ignore[operator]
    there = weight != 0
    rows = there.flatten(1).any(1)
    columns = there.transpose(0, 1).flatten(1).any(1)
    if bool(rows.all()) and bool(columns.all()):
        raise FormError("it has no row and no column of zeros")
    if not bool(rows.any()):
        raise FormError("all of its weights are zero")
    axis = -1 if isinstance(layer, nn.Linear) else -(weight.ndim - 1)
    candidates: list[nn.Module] = []
    all_rows, all_columns = torch.ones_like(rows), torch.ones_like(columns)
    for r in [rows] if bool(rows.all()) else [rows, all_rows]:
        for c in [columns] if bool(columns.all()) else [columns, all_columns]:
            if bool(r.all()) and bool(c.all()):
                continue
            for way in _WAYS if not bool(r.all()) else _WAYS[:1]:
                candidates.append(_without(layer, r, c, axis, way))
    best = candidates[0]
    for other in candidates[1:]:
        first, second = measure(partial(_run, best, seen), partial(_run, other, seen))
        if second < first:
            best = other
    return best.train(layer.training)


def _run(module: nn.Module, seen: Sequence[Seen]) -> None:
    with torch.no_grad():
        for s in seen:
            module(s.ones())


def _without(layer: nn.Module, rows: Tensor, columns: Tensor, axis: int, way: Way) -> nn.Module:
    keep_rows, keep_columns = torch.nonzero(rows)[:, 0], torch.nonzero(columns)[:, 0]
    weight: Tensor = layer.weight  # type: ignore[assignment]
    bias: Tensor | None = layer.bias  # type: ignore[assignment]
    new: nn.Module
    options: dict[str, Any] = {
        "bias": bias is not None,
        "device": "meta",
        "dtype": weight.dtype,
    }
    if isinstance(layer, nn.Linear):
        new = nn.Linear(len(keep_columns), len(keep_rows), **options)
    else:
        assert isinstance(layer, _ConvNd)
        new = type(layer)(
            len(keep_columns),
            len(keep_rows),
            layer.kernel_size,
            stride=layer.stride,
            padding=layer.padding,
            dilation=layer.dilation,
            padding_mode=layer.padding_mode,
            **options,
        )
    cut = weight.detach()[keep_rows][:, keep_columns].clone()
    new.weight = nn.Parameter(cut, requires_grad=weight.requires_grad)
    if bias is not None:
        new.bias = nn.Parameter(bias.detach()[keep_rows].clone(), requires_grad=bias.requires_grad)
    parts: list[nn.Module] = [new]
    if not bool(columns.all()):
        parts.insert(0, Gather(keep_columns, axis))
    if not bool(rows.all()):
        fill = weight.new_zeros(len(rows)) if bias is None else bias.detach().clone()
        fill[rows] = 0.0
        parts.append(Scatter(keep_rows, fill, axis, way))
    return nn.Sequential(*parts)
