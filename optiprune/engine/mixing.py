"""New inputs from the calibration samples, for a teacher that answers any input.

A distillation needs no labels, so that it can look at more than the samples: at weighted means of
two of them (mixup: Zhang, Cisse, Dauphin and Lopez-Paz 2018, arXiv:1710.09412; for distillation:
Beyer et al. 2022, arXiv:2106.05237), or, where inputs are tokens and have no means, at the
beginning of one sequence followed by the end of another.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from optiprune.curvature.data import Batch, tree_leaves, tree_map

__all__ = ["mixed"]


def mixed(batch: Batch, others: Batch, share: float, rng: np.random.Generator) -> Batch:
    """The batch's inputs, about ``share`` of its samples mixed with those of ``others``.

    Parameters
    ----------
    others : as many samples, of the same shapes
    share : in [0, 1], chance of a sample to be mixed

    Returns
    -------
    A batch without targets. Inputs of floats become ``t x + (1 - t) y`` with t uniform in (0, 1).
    Where any input is of integers, sequences are cut at a place that is drawn for each sample, the
    same for all inputs of that length (token numbers, attention masks); inputs of no such length
    stay.
    """
    n = batch.n
    chosen = rng.random(n) < share
    t = torch.from_numpy(np.where(chosen, rng.random(n), 1.0))
    leaves = [x for x in tree_leaves(batch.inputs) if x.ndim and x.shape[0] == n]
    tokens = [x for x in leaves if x.ndim > 1 and not x.is_floating_point()]
    length = tokens[0].shape[1] if tokens else 0

    def of(x: Tensor, y: Tensor) -> Tensor:
        if not x.ndim or x.shape[0] != n:
            return x
        part = t.to(x.device).reshape(-1, *[1] * (x.ndim - 1))
        if not tokens:
            return (part * x + (1.0 - part) * y).to(x.dtype) if x.is_floating_point() else x
        if x.ndim < 2 or x.shape[1] != length:
            return x
        place = torch.arange(length, device=x.device).reshape(1, -1, *[1] * (x.ndim - 2))
        return torch.where(place < part * length, x, y)

    return Batch(tree_map(of, batch.inputs, others.inputs), None)
