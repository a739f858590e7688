"""The dense model's outputs as targets, computed once where they fit in memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from optiprune.curvature.data import Batch, CalibrationError, CalibrationSet
from optiprune.curvature.losses import logits_of
from optiprune.curvature.runner import run_model, untouched

__all__ = ["with_dense_targets"]


def with_dense_targets(
    model: nn.Module, dense: Mapping[str, Tensor], data: CalibrationSet, chunk: int
) -> CalibrationSet:
    """``data`` with the dense model's logits as targets, for the loss 'kl'.

    All logits are held in memory: samples x positions x classes. To be read in batches of the same
    ``chunk``.

    Raises
    ------
    CalibrationError
        Outputs with a single class, of which the softmax is 1 whatever the weights.
    """
    batches = []
    with torch.no_grad(), untouched(model):
        for batch in data.batches(chunk):
            logits = logits_of(run_model(model, dense, batch.inputs)).clone()
            if logits.ndim == 0 or logits.shape[-1] < 2:
                raise CalibrationError(
                    f"the loss 'kl' compares class probabilities, but the model's output has shape "
                    f"{tuple(logits.shape)}; set prune.loss (mse, a callable), or "
                    "allocation.curve = 'layer-error'"
                )
            batches.append(Batch(batch.inputs, logits))
    return CalibrationSet(batches)
