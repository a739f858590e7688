"""Convolutions: plain, depthwise, grouped and transposed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import fx

from optiprune.structure.context import Columns, Context
from optiprune.structure.factors import Factor, Labels
from optiprune.structure.units import KERNEL

from .registry import rule

__all__: list[str] = []

_PLACES = "places keep their number"


@rule("conv1d", "conv2d", "conv3d", counted=True)
def convolution(
    context: Context,
    x: Labels,
    weight: Labels,
    bias: Labels | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] | str = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Labels:
    return _convolve(context, x, weight, bias, groups, transposed=False)


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", counted=True)
def conv_transpose(
    context: Context,
    x: Labels,
    weight: Labels,
    bias: Labels | None = None,
    stride: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    output_padding: int | Sequence[int] = 0,
    groups: int = 1,
    dilation: int | Sequence[int] = 1,
) -> Labels:
    return _convolve(context, x, weight, bias, groups, transposed=True)


@rule("convolution", counted=True)
def aten_convolution(
    context: Context,
    x: Labels,
    weight: Labels,
    bias: Labels | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Labels:
    return _convolve(context, x, weight, bias, groups, transposed=transposed)


def _convolve(
    context: Context,
    x: Labels,
    weight: Labels,
    bias: Labels | None,
    groups: int,
    *,
    transposed: bool,
) -> Labels:
    places = weight.ndim - 2
    axis = x.ndim - places - 1  # of the channels: an image may come without a batch
    weight = context.fix_all(weight, range(2, weight.ndim), KERNEL)
    x = context.fix_all(x, range(axis + 1, x.ndim), _PLACES)
    x = _single(context, x, axis)
    if groups > 1 and weight.at(0) is None and weight.shape[0] > 1:
        # computed by the program from what has no units
        context.hold(weight, "its rows have a fixed number")
        x = context.fix(x, axis, "it is read by a weight of a fixed size")
        plain = Labels(context.shape(), tuple(g for g in x.factors if axis not in g.dims))
        places_of = (x if transposed else plain).shape[axis + 1 :]
        counted = Labels((*plain.shape[: axis + 1], *places_of), plain.factors)
        context.count(counted, None, float(np.prod(weight.shape[1:])))
        return _with_bias(context, plain, bias, places)
    f = x.at(axis)
    shape = context.shape()
    rest = tuple(g for g in x.factors if g is not f)
    # multiply-adds: for every element of the result one for each column of its group
    kernel = float(np.prod(weight.shape[2:]))
    channels = x.shape[axis]
    if groups == 1:
        ins, outs = (0, 1) if transposed else (1, 0)
        columns, rows = weight.at(ins), weight.at(outs)
        if columns is not None and f is None:
            context.fix(weight, ins, "its input has a fixed number of channels")
        elif columns is None and f is not None:
            context.fix(x, axis, "it is read by a layer of one channel")
        elif columns is not None and f is not None:
            context.units.merge(columns.ids, f.ids)
        if columns is not None:
            context.relations.read.update(columns.ids.tolist())
        out = None if rows is None else rows.ids
    elif x.shape[axis] == groups and not transposed:
        # depthwise: a channel with all that is made of it
        rows = weight.at(0)
        assert rows is not None
        out = rows.ids
        each = out.reshape(groups, -1)
        if f is None:
            context.units.hold(out, context.because("its input has a fixed number of channels"))
        else:
            context.units.merge(f.ids[:, None], each)
    elif transposed:
        context.hold(weight, "a grouped transposed convolution")
        context.hold(x, "it is read by a grouped transposed convolution")
        out = None
    else:
        rows, columns = weight.at(0), weight.at(1)
        assert rows is not None
        out = rows.ids
        context.balance(out.reshape(groups, -1), "groups of a convolution keep equally many")
        if columns is not None:
            context.units.hold(columns.ids, context.because("columns of all groups"))
        if f is None:
            pass
        elif columns is None:
            context.fix(x, axis, "each group reads one channel")
        else:
            parts = f.ids.reshape(groups, -1)
            context.balance(parts, "groups of a convolution read equally many")
            weight_node = context.node.args[1]
            assert isinstance(weight_node, fx.Node)
            context.relations.columns.append(Columns(weight_node.name, parts))
    if out is not None:
        context.name(out, "channels")
    new = () if out is None else (Factor((axis,), out),)
    result = Labels(shape, (*rest, *new))
    counted = Labels((*shape[: axis + 1], *x.shape[axis + 1 :]), result.factors)
    counted = counted if transposed else result
    summed = None if channels == groups else f
    context.count(counted, summed, kernel / groups * (1 if summed else channels))
    return _with_bias(context, result, bias, places)


def _with_bias(context: Context, out: Labels, bias: Labels | None, places: int) -> Labels:
    if bias is None:
        return out
    return context.meet([out, bias.followed_by(places)], "its bias is fixed")


def _single(context: Context, x: Labels, axis: int) -> Labels:
    """Units over channels and other dimensions: the channels' alone."""
    f = x.at(axis)
    while f is not None and len(f.dims) > 1:
        x = context.fix(x, next(d for d in f.dims if d != axis), _PLACES)
        f = x.at(axis)
    return x
