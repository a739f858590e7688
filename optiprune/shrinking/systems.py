"""Layers that read a group as least-squares systems over its units."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
from torch import Tensor

from optiprune.curvature import LayerGram

from .column_subset import System
from .readers import Readers

__all__ = ["systems_of"]


def systems_of(
    group: int,
    size: int,
    readers: Readers,
    weights: Mapping[str, Tensor],
    grams: Mapping[str, LayerGram],
    damping: float,
) -> list[System]:
    """One system for each layer that reads the group, or each group of such a convolution.

    An error counts by the energy of the layer's output, so that layers of large outputs do not
    decide alone.
    """
    out = []
    for reader in readers.of(group):
        layer, gram = reader.layer, grams[reader.layer.name]
        rows = weights[layer.parameter].detach().reshape(layer.rows, layer.cols)
        energy = float(gram.target_energy(rows).sum())
        channels = layer.shape[1]
        kernel = layer.cols // channels
        places = np.arange(layer.cols).reshape(channels, kernel)
        for k in range(layer.groups):
            columns: list[npt.NDArray[np.int64]] = []
            for of in reader.channels(group, size):
                inside = of[(of >= k * channels) & (of < (k + 1) * channels)] - k * channels
                columns.append(places[inside].ravel())
            if not any(len(c) for c in columns):
                continue
            part = rows.reshape(layer.groups, -1, layer.cols)[k]
            out.append(
                System(
                    gram.H[k].cpu().numpy(),
                    part.T.double().cpu().numpy(),
                    columns,
                    1.0 / energy if energy > 0 else 1.0,
                    damping,
                )
            )
    return out
