"""Norms, pools, softmax, means: operations in which elements of a dimension see one another."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from optiprune.structure.context import Context
from optiprune.structure.factors import Labels

from .registry import rule

__all__: list[str] = []

_PLACES = "places keep their number"


@rule("_native_batch_norm_legit_no_training", "batch_norm", "native_batch_norm")
def batch_norm(
    context: Context, x: Labels, weight: Labels | None, bias: Labels | None, *rest: Any
) -> Any:
    stats = [r for r in rest if isinstance(r, Labels)]
    of_channels = [p for p in (weight, bias, *stats) if p is not None]
    shaped = [p.followed_by(x.ndim - 2) for p in of_channels]
    out = context.meet([x, *shaped], "a norm over a fixed number of channels")
    return _alike(context, out)


@rule("instance_norm")
def instance_norm(context: Context, x: Labels, *rest: Any) -> Labels:
    x = context.fix_all(x, range(2, x.ndim), _PLACES)
    shaped = [r.followed_by(x.ndim - 2) for r in rest if isinstance(r, Labels)]
    return context.meet([x, *shaped], "a norm over a fixed number of channels")


@rule("layer_norm", "native_layer_norm", "rms_norm")
def layer_norm(context: Context, x: Labels, shape: Sequence[int], *rest: Any) -> Any:
    reason = f"{context.operation} takes its statistics over it"
    x = context.fix_all(x, range(x.ndim - len(shape), x.ndim), reason)
    for p in rest:
        if isinstance(p, Labels):
            context.hold(p, reason)
    return _alike(context, x)


@rule("group_norm")
def group_norm(
    context: Context,
    x: Labels,
    groups: int,
    weight: Labels | None = None,
    bias: Labels | None = None,
    *_: Any,
) -> Labels:
    shape = x.shape
    params = [p.followed_by(x.ndim - 2) for p in (weight, bias) if p is not None]
    x = context.fix_all(x, range(2, x.ndim), _PLACES)
    x = context.meet([x, *params], "a norm over a fixed number of channels")
    split = x.reshaped((shape[0], groups, shape[1] // groups, *shape[2:]))
    # a group of the norm leaves as a whole
    if groups > 1:
        split = context.fix(split, 2, "a norm takes its statistics over each of its groups")
    else:
        split = context.fix_all(split, (1, 2), "a norm takes its statistics over all channels")
    return split.reshaped(shape)


def _alike(context: Context, out: Labels) -> Any:
    """For operations that return statistics beside the result."""
    value = context.node.meta["val"]
    if isinstance(value, tuple | list):
        return (out, *(Labels(tuple(v.shape)) for v in value[1:]))
    return out


@rule(
    "adaptive_avg_pool1d",
    "adaptive_avg_pool2d",
    "adaptive_avg_pool3d",
    "_adaptive_avg_pool2d",
    "adaptive_max_pool1d",
    "adaptive_max_pool2d",
    "adaptive_max_pool3d",
    "avg_pool1d",
    "avg_pool2d",
    "avg_pool3d",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "max_pool2d_with_indices",
    "max_pool3d_with_indices",
    "upsample_nearest1d",
    "upsample_nearest2d",
    "upsample_nearest3d",
    "_upsample_nearest_exact1d",
    "_upsample_nearest_exact2d",
    "_upsample_nearest_exact3d",
    "upsample_linear1d",
    "upsample_bilinear2d",
    "upsample_bicubic2d",
    "upsample_trilinear3d",
    "_upsample_bilinear2d_aa",
    "_upsample_bicubic2d_aa",
    "reflection_pad1d",
    "reflection_pad2d",
    "reflection_pad3d",
    "replication_pad1d",
    "replication_pad2d",
    "replication_pad3d",
)
def pool(context: Context, x: Labels, *_: Any, **__: Any) -> Any:
    found = re.search(r"(\d)d", context.operation)
    places = int(found.group(1)) if found else 1
    x = context.fix_all(x, range(x.ndim - places, x.ndim), _PLACES)
    out = Labels(context.shape(), x.factors)
    value = context.node.meta["val"]
    return (out, *([out] * (len(value) - 1))) if isinstance(value, tuple | list) else out


@rule("mean", "sum", "amax", "amin", "std", "var", "prod", "logsumexp", "any", "all")
def reduce(
    context: Context,
    x: Labels,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *_: Any,
    **kwargs: Any,
) -> Labels:
    dims = range(x.ndim) if dim is None else [dim] if isinstance(dim, int) else dim
    dims = list(dims) or list(range(x.ndim))
    x = context.fix_all(x, dims, f"{context.operation} over it")
    shape = context.shape()
    for d in sorted((d % x.ndim for d in dims), reverse=True):
        x = x.taken(d, 0)
    if len(shape) != x.ndim:
        for d in sorted(d % len(shape) for d in dims):
            x = x.inserted(d)
    return x


@rule("linalg_vector_norm", "norm")
def vector_norm(
    context: Context,
    x: Labels,
    order: float | None = 2,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    *_: Any,
    **__: Any,
) -> Labels:
    return reduce(context, x, dim, keepdim)


@rule("max", "min")
def extreme(context: Context, x: Labels, other: Any = None, *rest: Any, **kwargs: Any) -> Any:
    """Of two tensors element by element, or along a dimension with its indices, or of all."""
    if isinstance(other, Labels):
        return context.meet([x, other], "it meets a tensor whose size is fixed there")
    out = reduce(context, x, other, *rest, **kwargs)
    return (out, out) if isinstance(context.node.meta["val"], tuple | list) else out


@rule("var_mean", "std_mean", "argmax", "argmin")
def statistics(context: Context, x: Labels, dim: Any = None, *rest: Any, **kwargs: Any) -> Any:
    keepdim = bool(kwargs.get("keepdim", rest[0] if "arg" in context.operation and rest else False))
    out = reduce(context, x, dim, keepdim)
    return (out, out) if isinstance(context.node.meta["val"], tuple | list) else out


@rule("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")
def grid_sampler(context: Context, x: Labels, grid: Labels, *_: Any) -> Labels:
    """Places of an image are read where a grid says."""
    context.hold(grid, "it says which places are read")
    x = context.fix_all(x, range(2, x.ndim), _PLACES)
    return Labels(context.shape(), x.factors)


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "cumsum", "cumprod", "sort")
def along(context: Context, x: Labels, dim: int, *_: Any, **__: Any) -> Any:
    name = context.operation.strip("_")
    return _alike(context, context.fix(x, dim, f"{name} over it"))
