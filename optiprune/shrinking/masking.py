"""A model without some units, as other weights of the layers that read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from .readers import Reader

__all__ = ["masked_weights", "stays", "with_columns_zero"]


def stays(reader: Reader, kept: Mapping[int, npt.NDArray[np.bool_]]) -> npt.NDArray[np.bool_]:
    """Which input channels of a layer are left, when groups in ``kept`` keep these units."""
    out = np.ones(len(reader.group), dtype=bool)
    for g, units in kept.items():
        at = reader.group == g
        out[at] = units[reader.unit[at]]
    return out


def with_columns_zero(weight: Tensor, groups: int, left: npt.NDArray[np.bool_]) -> Tensor:
    """A copy of a weight in its parameter's shape, zero where it reads channels that left."""
    mask = torch.from_numpy(left).to(weight.device).reshape(groups, -1)
    rows = mask.repeat_interleave(weight.shape[0] // groups, 0)
    return weight.detach() * rows.reshape(*rows.shape, *[1] * (weight.ndim - 2))


def masked_weights(
    readers: Sequence[Reader],
    weights: Mapping[str, Tensor],
    kept: Mapping[int, npt.NDArray[np.bool_]],
) -> dict[str, Tensor]:
    """Weights of these layers without what left: the function of the masked model."""
    return {
        r.layer.parameter: with_columns_zero(
            weights[r.layer.parameter], r.layer.groups, stays(r, kept)
        )
        for r in readers
    }
