"""What the layers of a model read: their inputs' channels, fixed values and zero columns."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, fx, nn

from .channels import channels_read
from .constants import Reached
from .groups import Structure
from .trace import Trace, operation_of, place_of, tensors_of

__all__ = ["Read", "reads_of"]

_LAYERS = {"linear": 0, "conv1d": 1, "conv2d": 2, "conv3d": 3}


@dataclass(frozen=True, slots=True, eq=False)
class Read:
    """One parameter through which units are read.

    Attributes
    ----------
    weight : its first name
    group, unit : (channels,) what each input channel is; -1 for one that stays
    zero : (channels,) whether all weights that read it are zero
    fixed : (channels,) whether it is one number at all places and for all inputs, in every call
    value : (channels,) float64, that number; NaN elsewhere
    padded : whether places beyond the border are read as zero
    groups : of the convolution
    layer : whether it is the weight of a linear layer or of a convolution: what it makes of a fixed
        channel can go into a bias
    """

    weight: str
    group: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]
    zero: npt.NDArray[np.bool_]
    fixed: npt.NDArray[np.bool_]
    value: npt.NDArray[np.float64]
    padded: bool
    groups: int
    layer: bool


def reads_of(
    model: nn.Module, structure: Structure, traced: Trace, values: Mapping[str, Any]
) -> list[Read]:
    """Every parameter that reads units, once."""
    tensors = tensors_of(model)
    blocks = {c.weight: len(c.units) for c in structure.columns}
    calls: dict[str, list[fx.Node]] = {}
    for node in traced.graph.nodes:
        if node.op == "call_function":
            for argument in node.all_input_nodes:
                for name in traced.holders.get(argument.name, ())[:1]:
                    calls.setdefault(name, []).append(node)
    out = []
    for (name, dim), (groups, units) in channels_read(structure, tensors).items():
        weight = tensors[name].detach()
        parts = blocks.get(name, 1)
        zero = _zero_columns(weight, dim, parts)
        fixed = np.ones(len(groups), dtype=bool)
        value = np.full(len(groups), np.nan)
        padded = False
        nodes = calls.get(name, [])
        layer = bool(nodes) and dim == 1
        for node in nodes:
            places = _LAYERS.get(operation_of(node))
            source = node.args[0]
            operand = node.args[1] if len(node.args) > 1 else None
            if (
                dim != 1
                or places is None
                or not isinstance(source, fx.Node)
                or not isinstance(operand, fx.Node)
                or name not in traced.holders.get(operand.name, ())
            ):
                layer = False
                fixed[:] = False
                continue
            # a function on another module's weight does not add that module's bias
            owners = {n.rpartition(".")[0] for n in traced.holders[operand.name]}
            layer &= place_of(node, "").module in owners
            seen: Reached = values[source.name]
            axis = seen.value.ndim - 1 if places == 0 else seen.value.ndim - places - 1
            here, number = _numbers(seen, axis)
            same = np.isnan(value) | (value == number)
            fixed &= here & same
            value = np.where(fixed, number, np.nan)
            padded |= places > 0 and _pads(node)
        out.append(Read(name, groups, units, zero, fixed, value, padded, parts, layer))
    return out


def _pads(node: fx.Node) -> bool:
    padding = node.args[4] if len(node.args) > 4 else node.kwargs.get("padding", 0)
    if isinstance(padding, str):
        return padding != "valid"
    return any(padding) if isinstance(padding, tuple | list) else bool(padding)


def _zero_columns(weight: Tensor, dim: int, parts: int) -> npt.NDArray[np.bool_]:
    """By the largest magnitude, never by a sum: an edge filter [1, -1] is not zero."""
    rows = weight.reshape(parts, -1, *weight.shape[1:]).movedim(dim + 1, 1)
    # not "== 0 of the largest": NaN is not zero
    alive = (rows != 0).reshape(parts, rows.shape[1], -1).any(2)
    return np.asarray((~alive).reshape(-1).cpu().numpy())


def _numbers(seen: Reached, axis: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float64]]:
    channels = seen.value.shape[axis]
    value = seen.value.movedim(axis, 0).reshape(channels, -1)
    free = ~seen.by_inputs.movedim(axis, 0).reshape(channels, -1).any(1)
    first = value[:, :1]
    one = free & (value == first).all(1) & torch.isfinite(first[:, 0])
    return (
        np.asarray(one.cpu().numpy()),
        np.asarray(first[:, 0].double().cpu().numpy(), dtype=np.float64),
    )
