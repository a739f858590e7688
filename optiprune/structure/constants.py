"""Which results of a model's operations do not depend on its inputs, and their values.

Every operation runs on example inputs, and beside it which elements the inputs can reach: through a
weight of zero they reach nothing. What they do not reach is the same for all inputs of this shape.
An operation without a rule is reached all over as soon as one of its operands is anywhere.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from .rules.elementwise import ELEMENTWISE
from .trace import Trace, operation_of, tensors_of

__all__ = ["Reached", "evaluate"]

_PRODUCTS = (
    *("linear", "conv1d", "conv2d", "conv3d", "convolution"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "mm", "bmm", "matmul"),
)
# operations whose result's elements are elements of the operand, or means and maxima of them
_MOVES = (
    *("view", "reshape", "_unsafe_view", "flatten", "unflatten", "permute", "transpose", "t"),
    *("unsqueeze", "squeeze", "expand", "select", "unbind", "slice", "narrow", "split"),
    *("split_with_sizes", "chunk", "tensor_split", "cat", "stack", "flip", "roll", "repeat"),
    *("repeat_interleave", "constant_pad_nd", "pad", "pixel_shuffle", "pixel_unshuffle"),
    *("channel_shuffle", "native_channel_shuffle", "mean", "sum", "amax", "alias", "clone"),
    *("adaptive_avg_pool1d", "adaptive_avg_pool2d", "_adaptive_avg_pool2d", "avg_pool1d"),
    *("avg_pool2d", "max_pool1d", "max_pool2d", "upsample_nearest1d", "upsample_nearest2d"),
    *("upsample_bilinear2d", "upsample_linear1d", "reflection_pad1d", "reflection_pad2d"),
    *("replication_pad1d", "replication_pad2d"),
)
_DRAWN = ("bernoulli", "rand_like", "randn_like", "rrelu")
_BATCH_NORMS = ("batch_norm", "_native_batch_norm_legit_no_training", "native_batch_norm")


@dataclass(frozen=True, slots=True, eq=False)
class Reached:
    """A tensor, and which of its elements depend on the inputs (bool, its shape)."""

    value: Tensor
    by_inputs: Tensor


def evaluate(
    model: nn.Module, traced: Trace, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> dict[str, Any]:
    """Every operation's name -> `Reached`, or a tuple of them, or what else it returns."""
    tensors = tensors_of(model)
    given = iter(tree_leaves((args, dict(kwargs))))
    values: dict[str, Any] = {}
    with torch.no_grad():
        for node in traced.graph.nodes:
            if node.op == "placeholder":
                if node.name in traced.holders:
                    values[node.name] = _clean(tensors[traced.holders[node.name][0]].detach())
                elif node.name in traced.constants:
                    values[node.name] = _clean(traced.constants[node.name])
                else:
                    x = next(given)
                    values[node.name] = _reached(x) if isinstance(x, Tensor) else x
            elif node.op == "call_function":
                values[node.name] = _run(node, values)
    return values


def _clean(t: Tensor) -> Reached:
    return Reached(t, torch.zeros_like(t, dtype=torch.bool))


def _reached(t: Tensor) -> Reached:
    return Reached(t, torch.ones_like(t, dtype=torch.bool))


def _run(node: fx.Node, values: Mapping[str, Any]) -> Any:
    args: Any = fx.node.map_arg(node.args, lambda n: values[n.name])
    kwargs: Any = fx.node.map_arg(node.kwargs, lambda n: values[n.name])
    if node.target is operator.getitem:
        source: Any = args[0]
        index: Any = args[1]
        return source[index]
    function: Any = node.target
    result = function(*_plain(args), **_plain(kwargs))
    leaves = tree_leaves((args, kwargs))
    operands = [r for r in leaves if isinstance(r, Reached) and r.value.numel()]
    if operation_of(node) in _DRAWN:  # another number each time
        return tree_map_only(Tensor, _reached, result)
    if not any(bool(r.by_inputs.any()) for r in operands):
        return tree_map_only(Tensor, _clean, result)
    name = operation_of(node)
    if name in ELEMENTWISE:
        return Reached(result, _together(name, operands, result.shape))
    if name in _PRODUCTS:
        return Reached(result, _product(function, args, kwargs))
    if name == "addmm":
        bias, x, y = args[:3]
        through = _either(torch.mm, x, y)
        return Reached(result, through | bias.by_inputs.expand(through.shape))
    if name in _BATCH_NORMS:
        return _batch_norm(args, result)
    if name in _MOVES:
        moved = function(*_plain(args, marks=True), **_plain(kwargs, marks=True))
        return _pair(result, moved)
    return tree_map_only(Tensor, _reached, result)


def _together(name: str, operands: Sequence[Reached], shape: torch.Size) -> Tensor:
    out = torch.zeros(shape, dtype=torch.bool, device=operands[0].value.device)
    for r in operands:
        out |= r.by_inputs.expand(shape)
    if name == "mul" and len(operands) == 2:
        for r in operands:  # what is multiplied by a fixed zero
            out &= (r.by_inputs | (r.value != 0)).expand(shape)
    return out


def _product(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Tensor:
    """Through products with what is not zero; a bias reaches nothing."""
    x, y, *rest = args
    if rest and (rest[0] is None or isinstance(rest[0], Reached)):
        rest = [None, *rest[1:]]

    def product(a: Tensor, b: Tensor) -> Tensor:
        out: Tensor = function(a, b, *rest, **{k: v for k, v in kwargs.items() if k != "bias"})
        return out

    return _either(product, x, y)


def _either(product: Any, x: Reached, y: Reached) -> Tensor:
    def marks(r: Reached) -> tuple[Tensor, Tensor]:
        return r.by_inputs.float(), (r.by_inputs | (r.value != 0)).float()

    (x_reached, x_there), (y_reached, y_there) = marks(x), marks(y)
    reached: Tensor = (product(x_reached, y_there) > 0) | (product(x_there, y_reached) > 0)
    return reached


def _batch_norm(args: Sequence[Any], result: Any) -> Any:
    x, weight = args[0], args[1]
    reached = x.by_inputs
    if weight is not None:
        scale = (weight.by_inputs | (weight.value != 0)).reshape(-1, *[1] * (x.value.ndim - 2))
        reached = reached & scale
    if isinstance(result, Tensor):
        return Reached(result, reached)
    return (Reached(result[0], reached), *(tree_map_only(Tensor, _reached, r) for r in result[1:]))


def _pair(result: Any, moved: Any) -> Any:
    if isinstance(result, Tensor):
        return Reached(result, moved > 0)
    return tuple(_pair(r, m) for r, m in zip(result, moved, strict=True))


def _plain(value: Any, *, marks: bool = False) -> Any:
    """Arguments as an operation takes them: values, or 1.0 where inputs reach."""
    return tree_map_only(Reached, lambda r: r.by_inputs.float() if marks else r.value, value)
