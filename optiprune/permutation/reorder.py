"""The tensors of a group with their channels in another order."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from .coupling import Group

__all__ = ["Order", "reordered", "write"]

Order = npt.NDArray[np.int64]

# what the known modules hold for each channel
_NAMES = ("weight", "bias", "running_mean", "running_var")


def reordered(model: nn.Module, orders: Iterable[tuple[Group, Order]]) -> dict[str, Tensor]:
    """Name in the state dict -> new tensor, for all parameters and buffers that the orders move.

    Parameters
    ----------
    orders : (channels,) of each group, order[i] is the channel that comes to position i
    """
    new: dict[str, Tensor] = {}
    for group, order in orders:
        _reorder(model, group, order, new)
    return new


def _reorder(model: nn.Module, group: Group, order: Order, new: dict[str, Tensor]) -> None:
    index = torch.from_numpy(order)
    for name, tensor, axis in _parts(model, group):
        t = new.get(name, tensor.detach())  # a layer's rows and columns move one after the other
        shape = (group.channels, -1) if axis == 0 else (t.shape[0], group.channels, -1)
        moved = t.reshape(shape).index_select(axis, index.to(t.device))
        new[name] = moved.reshape(t.shape)


def write(model: nn.Module, values: Mapping[str, Tensor]) -> None:
    """Copy values into the parameters and buffers of these names."""
    held = dict(model.named_parameters()) | dict(model.named_buffers())
    with torch.no_grad():
        for name, value in values.items():
            held[name].copy_(value)


def _parts(model: nn.Module, group: Group) -> Iterator[tuple[str, Tensor, int]]:
    """(name, tensor, axis) of what is moved: axis 0 for rows, 1 for the columns of a layer."""
    for module in group.producers:
        for name, tensor in _tensors(model, module, ("weight", "bias")):
            yield name, tensor, 0
    for module, run in group.carriers.items():
        for name, tensor in _tensors(model, module, _NAMES):
            if tensor.shape[0] == group.channels * run:  # one slope of PReLU is for all channels
                yield name, tensor, 0
    for module in group.consumers:
        for name, tensor in _tensors(model, module, ("weight",)):
            yield name, tensor, 1


def _tensors(model: nn.Module, module: str, names: tuple[str, ...]) -> Iterator[tuple[str, Tensor]]:
    held = model.get_submodule(module)
    for name in names:
        tensor = getattr(held, name, None)
        if isinstance(tensor, Tensor):
            yield f"{module}.{name}" if module else name, tensor
