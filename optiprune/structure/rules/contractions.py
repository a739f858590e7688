"""Products that sum over a dimension: layers, matrix products, attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import fx

from optiprune.structure.context import Context
from optiprune.structure.factors import Factor, Labels
from optiprune.structure.trace import operation_of
from optiprune.structure.units import Ids

from .registry import rule

__all__ = ["contract"]

_SIZED = "it is summed over with a tensor whose size is fixed there"


def contract(
    context: Context, x: Labels, i: int, y: Labels, j: int, second: object
) -> tuple[Labels, Labels, Factor | None]:
    """Dimension i of x and j of y are summed over: their units are one; both are gone after.

    Third comes the factor that was summed over. ``second`` is the argument that y is.
    """
    i, j = i % x.ndim, j % y.ndim
    f, g = x.at(i), y.at(j)
    if f is None or g is None:
        return context.fix(x, i, _SIZED), context.fix(y, j, _SIZED), None
    f_ids, x = _alone(context, x, f, i)
    g_ids, y = _alone(context, y, g, j)
    if _is_weight(second):
        context.relations.read.update(g.ids.ravel().tolist())
    context.units.merge(f_ids, g_ids)
    return x, y, Factor((i,), f_ids)


def _alone(context: Context, x: Labels, f: Factor, dim: int) -> tuple[Ids, Labels]:
    """The units along one dimension, after those over other dimensions were merged into them."""
    ids = f.ids
    for axis in reversed(range(len(f.dims))):
        if f.dims[axis] != dim:
            ids = context.units.merge_along(ids, axis)
    return ids, x.without(f)


_SHAPES = ("t", "transpose", "permute", "view", "reshape", "_to_copy", "alias", "detach", "numpy_T")


def _is_weight(argument: object) -> bool:
    """Whether an operand is a parameter, perhaps transposed."""
    while isinstance(argument, fx.Node) and argument.op == "call_function":
        if operation_of(argument) not in _SHAPES:
            return False
        argument = argument.args[0]
    return isinstance(argument, fx.Node) and argument.op == "placeholder"


@rule("linear", counted=True)
def linear(context: Context, x: Labels, weight: Labels, bias: Labels | None = None) -> Labels:
    length = x.shape[-1]
    x, weight, summed = contract(context, x, -1, weight, 1, context.node.args[1])
    out = _outer(context, x, weight)
    context.count(out, summed, 1 if summed else length)
    return _with_bias(context, out, bias)


def _outer(context: Context, x: Labels, weight: Labels) -> Labels:
    """(..., in) and (out, in), contracted: (..., out)."""
    shape = (*x.shape[:-1], weight.shape[0])
    rows = weight.at(0)
    new = [] if rows is None else [Factor((len(shape) - 1,), rows.ids)]
    return Labels(shape, (*x.factors, *new))


def _with_bias(context: Context, out: Labels, bias: Labels | None) -> Labels:
    return out if bias is None else context.meet([out, bias], _SIZED)


@rule("addmm", counted=True)
def addmm(context: Context, bias: Labels, x: Labels, y: Labels, **_: Any) -> Labels:
    return context.meet([_product(context, x, y, 2), bias], _SIZED)


@rule("baddbmm", counted=True)
def baddbmm(context: Context, bias: Labels, x: Labels, y: Labels, **_: Any) -> Labels:
    return context.meet([_product(context, x, y, 2), bias], _SIZED)


@rule("mm", "bmm", "matmul", "mv", "dot", counted=True)
def matmul(context: Context, x: Labels, y: Labels) -> Labels:
    return _product(context, x, y, 1)


def _product(context: Context, x: Labels, y: Labels, second: int) -> Labels:
    row, column = x.ndim == 1, y.ndim == 1
    x = x.inserted(0) if row else x
    y = y.inserted(1) if column else y
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    for f in (*x.factors, *y.factors):
        if min(f.dims) < len(batch):
            context.name(f.ids, "heads")
    # batch dimensions that one operand shares with the sum: units of all the sum leave together
    x = _within(context, x, x.ndim - 1)
    y = _within(context, y, y.ndim - 2)
    length = x.shape[-1]
    x, y, summed = contract(context, x, -1, y, -2, context.node.args[second])
    left = Labels((*x.shape[:-1], 1), tuple(f for f in x.factors if max(f.dims) < x.ndim - 1))
    right_shape = (*y.shape[:-2], 1, y.shape[-1])
    right = Labels(right_shape, tuple(f for f in y.factors if y.ndim - 2 not in f.dims))
    out = context.meet([left, right], _SIZED)
    assert out.shape[:-2] == tuple(batch)
    context.count(out, summed, 1 if summed else length)
    if column:
        out = out.taken(-1, 0)
    return out.taken(-1 if column and row else -2, 0) if row else out


def _within(context: Context, x: Labels, dim: int) -> Labels:
    """A factor over batch dimensions and the one that is summed over keeps the batch ones."""
    f = x.at(dim)
    if f is not None and _spans_batch(x, dim):
        context.name(f.ids, "heads")
        x = context.fix(x, dim, _SIZED)
    return x


@rule("_grouped_mm", "transformers.grouped_mm_fallback.default", counted=True)
def grouped_mm(context: Context, x: Labels, y: Labels, *_: Any, **__: Any) -> Labels:
    """Rows of x (rows, in), sorted by expert, each times the matrix of its expert in y
    (experts, in, out)."""
    if x.ndim != 2 or y.ndim != 3:
        context.hold(x, "a product in groups of another form")
        context.hold(y, "a product in groups of another form")
        return Labels(context.shape())
    x = context.fix(x, 0, "rows are sorted by expert")
    y = context.fix(y, 0, "experts are looked up by number")
    length = x.shape[-1]
    x, y, summed = contract(context, x, 1, y, 1, context.node.args[1])
    f = y.at(2)
    out = Labels(context.shape(), () if f is None else (Factor((1,), f.ids),))
    context.count(out, summed, 1 if summed else length)
    return out


@rule("scaled_dot_product_attention", counted=True)
def attention(
    context: Context,
    query: Labels,
    key: Labels,
    value: Labels,
    mask: Labels | None = None,
    dropout: float = 0.0,
    causal: bool = False,
    *,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Labels:
    reason = "the width of a head sets the scale of attention" if scale is None else _SIZED
    for x in (query, key, value):
        f = x.at(-1)
        if f is not None and _spans_batch(x):
            context.name(f.ids, "heads")
    query = context.fix(query, -1, reason)
    key = context.fix(key, -1, reason)
    if enable_gqa and query.shape[-3] != key.shape[-3]:
        each = np.repeat(np.arange(key.shape[-3]), query.shape[-3] // key.shape[-3])
        key, value = key.sliced(-3, each), value.sliced(-3, each)
    # scores (..., queries, keys); softmax over the keys
    q = Labels((*query.shape[:-1], 1), query.factors)
    k = context.fix(key, -2, "softmax runs over it")
    k = Labels((*key.shape[:-2], 1, key.shape[-2]), k.factors)
    scores = context.meet([q, k], _SIZED)
    if mask is not None:
        scores = context.meet([scores, mask], _SIZED)
    context.count(scores, None, query.shape[-1])
    weights = Labels((*scores.shape[:-1], 1), scores.factors)
    # units within a head of the values leave with the head
    value = context.fix(value, -1, _SIZED) if _spans_batch(value) else value
    value = context.fix(value, -2, "softmax runs over it")
    v = Labels((*value.shape[:-2], 1, value.shape[-1]), value.factors)
    out = context.meet([weights, v], _SIZED)
    context.count(out, None, value.shape[-2])
    return out


def _spans_batch(x: Labels, dim: int = -1) -> bool:
    f = x.at(dim)
    return f is not None and any(d < x.ndim - 2 for d in f.dims)


@rule("embedding")
def embedding(context: Context, weight: Labels, index: Labels, *_: Any, **__: Any) -> Labels:
    weight = context.fix(weight, 0, "its rows are looked up by number")
    f = weight.at(1)
    if f is not None:
        context.name(f.ids, "width")
    shape = (*index.shape, weight.shape[1])
    context.hold(index, "it is a number of a row")
    return Labels(shape, () if f is None else (Factor((len(shape) - 1,), f.ids),))
