"""How much the loss bends along the outputs of each layer.

An error e of a layer's output raises the loss by ``1/2 E[sum_t (d_t'e_t)^2]``, to second order and
as far as errors at different positions t do not act together, with d the gradients of the loss
there for labels drawn from the model's own outputs (Martens 2014, arXiv 1412.1193; the outputs'
half of the Kronecker-factored curvature of Martens and Grosse 2015, arXiv 1503.05671). Of it the
diagonal is taken: one number for every output.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from .data import CalibrationSet
from .layers import PrunableLayer
from .loss_pass import gradients, leaves_of, loss_chunks, sample_seed
from .losses import LossFunction
from .recording import OutputRecorder
from .runner import untouched
from .sample_axis import as_batch

__all__ = ["output_curvature"]

# terms of the loss after which the mean is good enough
_TERMS = 4096


def output_curvature(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
    loss: LossFunction,
    seed: np.random.SeedSequence,
    chunk: int = 256,
) -> dict[str, Tensor]:
    """Curvature of the loss along every output of every layer, summed over a sample's positions.

    Times half the mean square of the output's error at a position this is the rise of the loss.

    Parameters
    ----------
    weights : parameter name -> tensor, the point
    data : read until a few thousand terms of the loss were seen
    loss : one of `losses.has_true_fisher`; targets only tell the layout

    Returns
    -------
    layer name -> (rows,) float64 >= 0

    Raises
    ------
    CalibrationError
        The loss or a gradient is NaN or infinite, or depends on no layer.
    """
    generator = torch.Generator().manual_seed(sample_seed(seed))
    leaves = leaves_of(weights)
    rows = {layer.name: layer.rows for layer in layers}
    sums = {name: torch.zeros(count, dtype=torch.float64) for name, count in rows.items()}
    terms = 0
    with untouched(model), torch.enable_grad(), OutputRecorder(layers) as recorder:
        for c in loss_chunks(model, leaves, data, loss, None, chunk, generator):
            uses = recorder.take()
            if not c.terms:
                continue
            for use, d in zip(uses, gradients(c.value, [u.output for u in uses]), strict=True):
                if d is None:
                    continue
                d = as_batch(use.module, d.detach()) * c.terms
                axis = 1 if isinstance(use.module, nn.Conv2d) else d.ndim - 1
                others = [i for i in range(d.ndim) if i != axis]
                sums[use.layer] += d.double().square().sum(others).cpu()
            terms += c.terms
            if terms >= _TERMS:
                break
    return {name: found / max(1, terms) for name, found in sums.items()}
