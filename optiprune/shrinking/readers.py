"""Which layers read the units of a model, and on which of their input channels.

Removing a unit leaves the model as it is except where layers read it: its entries of their inputs
become zero. So all that a unit is worth is seen there, however many layers make it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from optiprune.curvature import LayerError, PrunableLayer, find_layers
from optiprune.structure import Structure
from optiprune.structure.channels import Channels, channels_read
from optiprune.structure.trace import tensors_of

from .errors import ShrinkingError

__all__ = ["Reader", "Readers", "find_readers"]


@dataclass(frozen=True, slots=True, eq=False)
class Reader:
    """A layer that reads units.

    Attributes
    ----------
    layer : Linear or Conv2d
    group, unit : (input channels,) int64, what each of them is; -1 for one that has to stay
    """

    layer: PrunableLayer
    group: npt.NDArray[np.int64]
    unit: npt.NDArray[np.int64]

    def channels(self, group: int, size: int) -> list[npt.NDArray[np.int64]]:
        """For every unit of a group the input channels that are its."""
        at = np.flatnonzero(self.group == group)
        order = at[np.argsort(self.unit[at], kind="stable")]
        ends = np.cumsum(np.bincount(self.unit[at], minlength=size))
        return np.split(order, ends[:-1])


@dataclass(frozen=True, slots=True, eq=False)
class Readers:
    """What `find_readers` returns.

    Attributes
    ----------
    readers : in the order of the model's layers
    unread : group's number -> the tensor that reads it, of a kind that is not understood here, or
        "" where nothing does
    """

    readers: tuple[Reader, ...]
    unread: Mapping[int, str]

    def of(self, group: int) -> list[Reader]:
        return [r for r in self.readers if (r.group == group).any()]


def find_readers(model: nn.Module, structure: Structure) -> Readers:
    """The layers that read each group.

    Raises
    ------
    ShrinkingError
        No group is read by a Linear or Conv2d layer.
    """
    try:
        layers = find_layers(model)
    except LayerError as error:
        raise ShrinkingError(str(error)) from error
    owners = {f"{n}.weight": layer for layer in layers for n in layer.module_names}
    grouped = {c.weight for c in structure.columns}
    maps: dict[str, Channels] = {}
    unread: dict[int, str] = {}
    read: set[int] = set()
    for (tensor, dim), channels in channels_read(structure, tensors_of(model)).items():
        here = {int(g) for g in np.unique(channels[0]) if g >= 0}
        layer = owners.get(tensor)
        if layer is None or dim != 1 or (layer.groups > 1 and tensor not in grouped):
            unread |= dict.fromkeys(here - unread.keys(), tensor)
            continue
        maps[layer.name] = channels
        read |= here
    unread |= dict.fromkeys(set(range(len(structure.groups))) - read - unread.keys(), "")
    by_name = {layer.name: layer for layer in layers}
    readers = tuple(Reader(by_name[n], *maps[n]) for n in by_name if n in maps)
    if len(unread) == len(structure.groups):
        raise ShrinkingError(_nothing(structure, unread))
    return Readers(readers, unread)


def _nothing(structure: Structure, unread: Mapping[int, str]) -> str:
    if not structure.groups:
        return "the model has no group of units that can leave it; see what is held, and why"
    names: Sequence[str] = [
        f"{structure.groups[g].name} ({t or 'nothing'})" for g, t in sorted(unread.items())
    ]
    return "no group is read by a Linear or Conv2d layer alone: " + ", ".join(names[:8])
