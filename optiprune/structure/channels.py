"""Which unit each entry of a reading tensor's dimension is."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from .groups import Structure

__all__ = ["Channels", "channels_read"]

IntArray = npt.NDArray[np.int64]
Channels = tuple[IntArray, IntArray]
"""Group and unit of every entry, (entries,) each; -1 for one that has to stay."""


def channels_read(
    structure: Structure, tensors: Mapping[str, Tensor]
) -> dict[tuple[str, int], Channels]:
    """Tensor and dimension -> the units that are read there.

    The columns of a grouped convolution are all its input channels, one group after the other.

    Parameters
    ----------
    tensors : by the names of `optiprune.structure.trace.tensors_of`
    """
    out: dict[tuple[str, int], Channels] = {}
    for g, group in enumerate(structure.groups):
        for m in group.members:
            if not m.reads:
                continue
            n = tensors[m.tensor].shape[m.dim]
            groups, units = out.setdefault(
                (m.tensor, m.dim), (np.full(n, -1, np.int64), np.full(n, -1, np.int64))
            )
            for u, index in enumerate(m.indices):
                groups[index], units[index] = g, u
    for c in structure.columns:
        pairs = np.array([pair for row in c.units for pair in row], dtype=np.int64).reshape(-1, 2)
        out[c.weight, 1] = (pairs[:, 0].copy(), pairs[:, 1].copy())
    return out
