"""Operations that move elements and change none."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from optiprune.structure.context import Context
from optiprune.structure.factors import Factor, Labels, ReshapeError, joined
from optiprune.structure.units import FIXED

from .registry import rule

__all__: list[str] = []


@rule("view", "reshape", "_unsafe_view", "flatten", "unflatten", "_reshape_alias", "view_copy")
def reshape(context: Context, x: Labels, *_: Any) -> Labels:
    shape = context.shape()
    mixed = x.mixed(shape)
    if mixed:
        x = context.fix_all(x, mixed, f"{x.shape} -> {shape} mixes units of two kinds")
    out = x.reshaped(shape)
    for f in out.factors:
        if len(f.dims) > 1:
            context.relations.joint.append(f.ids)
    return out


@rule("permute")
def permute(context: Context, x: Labels, dims: Sequence[int]) -> Labels:
    return x.permuted(dims)


@rule("transpose", "swapaxes")
def transpose(context: Context, x: Labels, a: int, b: int) -> Labels:
    order = list(range(x.ndim))
    order[a], order[b] = order[b], order[a]
    return x.permuted(order)


@rule("t", "numpy_T", "mT")
def t(context: Context, x: Labels) -> Labels:
    order = list(range(x.ndim))
    order[-2:] = order[-2:][::-1]
    return x.permuted(order)


@rule("unsqueeze")
def unsqueeze(context: Context, x: Labels, dim: int) -> Labels:
    return x.inserted(dim)


@rule("squeeze")
def squeeze(context: Context, x: Labels, dims: int | Sequence[int] | None = None) -> Labels:
    if dims is None:
        dims = range(x.ndim)
    dims = [dims] if isinstance(dims, int) else dims
    for dim in sorted((d % x.ndim for d in dims), reverse=True):
        if x.shape[dim] == 1:
            x = context.fix(x, dim, "it is squeezed").taken(dim, 0)
    return x


@rule("expand", "expand_as", "broadcast_to")
def expand(context: Context, x: Labels, *_: Any, **__: Any) -> Labels:
    return context.stretched(x, context.shape())


@rule("select")
def select(context: Context, x: Labels, dim: int, index: int) -> Labels:
    f = x.at(dim)
    if f is not None and f.dims == (dim % x.ndim,):
        x = context.fix(x, dim, "one index is taken by its number")
    return x.taken(dim, index)


@rule("unbind")
def unbind(context: Context, x: Labels, dim: int = 0) -> tuple[Labels, ...]:
    return tuple(select(context, x, dim, i) for i in range(x.shape[dim]))


@rule("slice")
def slice_(
    context: Context,
    x: Labels,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Labels:
    size = x.shape[dim]
    first, last, step = slice(start, end, step).indices(size)
    return _cut(context, x, dim, first, max(0, last - first), step)


@rule("narrow")
def narrow(context: Context, x: Labels, dim: int, start: int, length: int) -> Labels:
    return _cut(context, x, dim, start, length, 1)


def _cut(context: Context, x: Labels, dim: int, first: int, length: int, step: int) -> Labels:
    size = x.shape[dim]
    f = x.at(dim)
    if f is not None and not (length == size and step == 1):
        # halves, thirds: a program that computes them from the size still finds them in what is
        # left, if each of them kept as many
        if step == 1 and length and size % length == 0 and first % length == 0:
            _balance(context, x, f, dim, size // length)
        else:
            x = context.fix(x, dim, "it is cut at places that the program fixes")
    return x.sliced(dim, slice(first, first + length, step))


@rule("split", "split_with_sizes", "chunk", "split_copy", "tensor_split", "unsafe_split")
def split(
    context: Context, x: Labels, sizes: int | Sequence[int], dim: int = 0
) -> tuple[Labels, ...]:
    lengths = [int(v.shape[dim]) for v in context.node.meta["val"]]
    f = x.at(dim)
    if f is not None and len(lengths) > 1:
        if len(set(lengths)) == 1:
            _balance(context, x, f, dim, len(lengths))
        else:
            x = context.fix(x, dim, f"it is split into unequal parts, {lengths}")
    ends = np.cumsum(lengths).tolist()
    return tuple(x.sliced(dim, slice(e - n, e)) for n, e in zip(lengths, ends, strict=True))


def _balance(context: Context, x: Labels, f: Factor, dim: int, parts: int) -> None:
    dim %= x.ndim
    ids = np.moveaxis(f.ids, f.dims.index(dim), 0)
    for column in ids.reshape(len(ids), -1).T:
        context.balance(column.reshape(parts, -1), "parts of one size are cut from it")


@rule("cat", "concat", "concatenate")
def cat(context: Context, tensors: Sequence[Labels], dim: int = 0) -> Labels:
    parts = [p for p in tensors if p.shape != (0,)]
    dim %= parts[0].ndim
    spans = {() if f is None else f.dims for f in (p.at(dim) for p in parts)}
    if len(spans) > 1 and any(len(dims) > 1 for dims in spans):
        # one part is cut or turned within what the other has as a whole: heads stay whole
        reason = "it is joined to what has other units there"
        parts = [
            p if f is None or len(f.dims) == 1 else context.fix(p, dim, reason)
            for p, f in ((p, p.at(dim)) for p in parts)
        ]
    # the other dimensions are those of a sum
    others = [p.sliced(dim, slice(0, 1)).taken(dim, 0) for p in parts if p.at(dim) is None]
    for p in parts:
        f = p.at(dim)
        if f is not None:
            others.append(p.without(f).sliced(dim, slice(0, 1)).taken(dim, 0))
    if others:
        context.meet(others, "it is joined to a tensor whose size is fixed there")
    try:
        return joined(parts, dim)
    except ReshapeError as error:
        for p in parts:
            context.hold(p, str(error))
        return Labels(context.shape())


@rule("stack")
def stack(context: Context, tensors: Sequence[Labels], dim: int = 0) -> Labels:
    x = context.meet(tensors, "it is stacked with a tensor whose size is fixed there")
    return x.inserted(dim).broadcast(context.shape())


@rule("flip")
def flip(context: Context, x: Labels, dims: Sequence[int]) -> Labels:
    for dim in dims:
        x = x.sliced(dim, slice(None, None, -1))
    return x


@rule("roll")
def roll(
    context: Context, x: Labels, shifts: int | Sequence[int], dims: int | Sequence[int] = ()
) -> Labels:
    if isinstance(dims, int):
        dims = [dims]
    return context.fix_all(x, dims or range(x.ndim), "it is rolled by a number of places")


@rule("repeat", "tile")
def repeat(context: Context, x: Labels, repeats: Sequence[int]) -> Labels:
    for _ in range(len(repeats) - x.ndim):
        x = x.inserted(0)
    for dim, times in enumerate(repeats):
        if times != 1 and x.at(dim) is not None:
            x = x.sliced(dim, np.tile(np.arange(x.shape[dim]), times))
        elif times != 1:
            shape = list(x.shape)
            shape[dim] *= times
            x = Labels(tuple(shape), x.factors)
    return x


@rule("repeat_interleave")
def repeat_interleave(
    context: Context, x: Labels, repeats: Any, dim: int | None = None, **_: Any
) -> Labels:
    if not isinstance(repeats, int) or dim is None:
        context.hold(x, "its elements are repeated by numbers from a tensor")
        return Labels(context.shape())
    if x.at(dim) is None:
        return Labels(context.shape(), x.factors)
    return x.sliced(dim, np.repeat(np.arange(x.shape[dim]), repeats))


@rule("constant_pad_nd", "pad")
def pad(context: Context, x: Labels, widths: Sequence[int], *_: Any, **__: Any) -> Labels:
    shape = context.shape()
    factors = []
    for f in x.factors:
        ids = f.ids
        for axis, dim in enumerate(f.dims):
            behind = x.ndim - 1 - dim
            if 2 * behind + 1 < len(widths):
                before, after = widths[2 * behind], widths[2 * behind + 1]
                if min(before, after) < 0:
                    context.hold(x, "a padding cuts it")
                    return Labels(shape)
                wide = [(0, 0)] * ids.ndim
                wide[axis] = (before, after)
                ids = np.pad(ids, wide, constant_values=FIXED)
        factors.append(Factor(f.dims, ids))
    return Labels(shape, tuple(factors))


@rule("pixel_shuffle")
def pixel_shuffle(context: Context, x: Labels, factor: int) -> Labels:
    *lead, channels, h, w = x.shape
    x = context.fix_all(x, (-2, -1), "its places are shuffled")
    x = x.reshaped((*lead, channels // factor**2, factor, factor, h, w))
    n = len(lead)
    x = context.fix_all(x, (n + 1, n + 2), "channels become places")
    return Labels(context.shape(), tuple(f for f in x.factors if max(f.dims) <= n))


@rule("pixel_unshuffle")
def pixel_unshuffle(context: Context, x: Labels, factor: int) -> Labels:
    n = x.ndim - 3
    x = context.fix_all(x, (-2, -1), "its places are shuffled")
    out = x.inserted(n + 1).broadcast((*x.shape[: n + 1], factor**2, *x.shape[n + 1 :]))
    shape = context.shape()
    return Labels(shape, out.reshaped((*shape[: n + 1], *x.shape[n + 1 :])).factors)


@rule("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(context: Context, x: Labels, groups: int) -> Labels:
    batch, channels, *places = x.shape
    x = x.reshaped((batch, groups, channels // groups, *places))
    x = context.fix(x, 1, "channels of all groups are shuffled")
    order = (0, 2, 1, *range(3, x.ndim))
    return x.permuted(order).reshaped(context.shape())


@rule("glu")
def glu(context: Context, x: Labels, dim: int = -1) -> Labels:
    """One half times the sigmoid of the other."""
    f = x.at(dim)
    if f is not None:
        _balance(context, x, f, dim, 2)
    half = x.shape[dim] // 2
    halves = [x.sliced(dim, slice(0, half)), x.sliced(dim, slice(half, None))]
    return context.meet(halves, "it meets a tensor whose size is fixed there")


@rule("im2col")
def im2col(context: Context, x: Labels, kernel: Sequence[int], *_: Any) -> Labels:
    """Places under a kernel become columns of each channel (`torch.nn.functional.unfold`)."""
    axis = x.ndim - 3
    x = context.fix_all(x, range(axis + 1, x.ndim), "its places become channels")
    f = x.at(axis)
    new = [] if f is None else [Factor((axis,), np.repeat(f.ids, int(np.prod(kernel))))]
    rest = [g for g in x.factors if g is not f]
    return Labels(context.shape(), (*rest, *new))


@rule("col2im")
def col2im(
    context: Context, x: Labels, size: Sequence[int], kernel: Sequence[int], *_: Any
) -> Labels:
    """Columns of each channel become places (`torch.nn.functional.fold`)."""
    axis = x.ndim - 2
    x = context.fix(x, axis + 1, "channels become places")
    each = int(np.prod(kernel))
    split = (*x.shape[:axis], x.shape[axis] // each, each, x.shape[axis + 1])
    x = context.fix(x.reshaped(split), axis + 1, "channels become places")
    return Labels(context.shape(), tuple(f for f in x.factors if max(f.dims) <= axis))


@rule("gather")
def gather(context: Context, x: Labels, dim: int, index: Labels, **_: Any) -> Labels:
    """Along one dimension the program looks up indices; the others stay as they are."""
    context.hold(index, "it is an index")
    shape = context.shape()
    short = [d for d in range(x.ndim) if shape[d] != x.shape[d]]
    x = context.fix_all(x, {dim % x.ndim, *short}, "its indices are looked up by number")
    return Labels(shape, x.factors)


@rule("index_select")
def index_select(context: Context, x: Labels, dim: int, index: Labels) -> Labels:
    context.hold(index, "it is an index")
    x = context.fix(x, dim, "its indices are looked up by number")
    return Labels(context.shape(), x.factors)


@rule("tril", "triu")
def triangle(context: Context, x: Labels, *_: Any) -> Labels:
    return context.fix_all(x, (-2, -1), "a triangle is cut from it")


@rule("new_zeros", "new_ones", "new_full", "new_empty")
def new(context: Context, x: Labels, *_: Any, **__: Any) -> Labels:
    """Takes nothing of a tensor but its type."""
    return Labels(context.shape())


@rule("index", "_unsafe_index")
def index(context: Context, x: Labels, indices: Sequence[Labels | None]) -> Labels:
    """Dimensions that are indexed keep their size; the others go on where they lie behind these."""
    used = [d for d, i in enumerate(indices) if i is not None]
    x = context.fix_all(x, used, "its indices are looked up by number")
    for i in indices:
        if i is not None:
            context.hold(i, "it is an index")
    shape = context.shape()
    first, last = used[0], used[-1]
    if used != list(range(first, last + 1)):
        context.hold(x, "it is indexed in dimensions that are apart")
        return Labels(shape)
    shift = len(shape) - x.ndim
    factors = (
        Factor(tuple(d if d < first else d + shift for d in f.dims), f.ids) for f in x.factors
    )
    return Labels(shape, tuple(factors))
