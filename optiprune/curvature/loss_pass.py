"""Calibration data through the model, chunk by chunk, and the gradients of a chunk's loss."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from .data import Batch, CalibrationError, CalibrationSet
from .losses import LossFunction, logits_of, loss_terms, sampled_label_loss
from .runner import run_model

__all__ = ["LossChunk", "gradients", "leaves_of", "loss_chunks", "require_terms", "sample_seed"]


@dataclass(frozen=True, slots=True)
class LossChunk:
    """A batch after the model: ``value`` is the mean loss over ``terms``, if there are any."""

    batch: Batch
    value: Tensor
    terms: int


def loss_chunks(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
    loss: LossFunction,
    dense_targets: Mapping[str, Tensor] | None,
    size: int,
    generator: torch.Generator | None = None,
) -> Iterator[LossChunk]:
    """The data through the model, chunk by chunk; with a generator on labels that it draws."""
    for batch in data.batches(size):
        targets = batch.targets
        if dense_targets is not None:
            with torch.no_grad():
                targets = logits_of(run_model(model, dense_targets, batch.inputs))
        output = run_model(model, weights, batch.inputs)
        if generator is not None:
            value = sampled_label_loss(output, targets, loss, generator)
        else:
            value = loss(output, targets)
        terms = loss_terms(loss, output, targets, batch.n)
        if terms:
            _require_finite_loss(value)
        yield LossChunk(batch, value, terms)


def leaves_of(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the weights that ask for gradients."""
    return {k: v.detach().clone().requires_grad_(True) for k, v in weights.items()}


def gradients(value: Tensor, wanted: Sequence[GradientEdge]) -> tuple[Tensor | None, ...]:
    """Gradients of a loss where they arrive; None where it does not depend on that.

    Raises `CalibrationError` if it depends on no layer at all.
    """
    if not value.requires_grad:
        raise CalibrationError("the loss does not depend on the weights of any layer")
    return torch.autograd.grad(value, wanted, allow_unused=True)


def require_terms(terms: int) -> None:
    """Raise `CalibrationError` if there is none."""
    if terms == 0:
        raise CalibrationError("no label of the calibration data counts: all are -100 (ignored)")


def _require_finite_loss(value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.ndim:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CalibrationError(
            f"the loss must be a scalar tensor (a mean over the batch), got {shape}"
        )
    if not bool(torch.isfinite(value)):
        raise CalibrationError(
            f"the loss is {float(value.detach())} on the calibration data: activations overflow or "
            "the data hold bad values"
        )


def sample_seed(seed: np.random.SeedSequence) -> int:
    """A 63-bit seed for a torch generator."""
    return int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1))
