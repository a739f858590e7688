"""Gradients of single samples with respect to all weights: the matrix A of the Fisher methods."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet, linearise_loss, mean_gradients
from optiprune.curvature.losses import LossFunction, divergence

from .flat import FlatWeights

__all__ = ["LossGradients", "loss_gradients", "require_room"]

_MOST_BYTES = 8 << 30


@dataclass(frozen=True, slots=True, eq=False)
class LossGradients:
    """The loss around one point, to second order: ``F = A'A / n``.

    Attributes
    ----------
    columns : (p, n) float32, A': one weight's gradients in all samples are contiguous
    mean : (p,) float32, gradient of the mean loss
    loss : mean loss at the point; of the drawn labels where there are no others
    """

    columns: Tensor
    mean: Tensor
    loss: float

    @property
    def n(self) -> int:
        return int(self.columns.shape[1])


def require_room(p: int, data: CalibrationSet, samples: int) -> None:
    """Raise ValueError if the gradients of ``samples`` samples would need more than 8 GiB."""
    n = min(samples, data.n)
    if 4 * p * n > _MOST_BYTES:
        size, room = 4 * p * n / 2**30, _MOST_BYTES // (4 * p)
        raise ValueError(
            f"the gradients of {n} samples for {p} weights need {size:.1f} GiB (at most "
            f"{_MOST_BYTES >> 30}): with samples = {room} they fit, or prune fewer layers"
        )


def loss_gradients(
    model: nn.Module,
    flat: FlatWeights,
    point: Tensor,
    data: CalibrationSet,
    loss: LossFunction,
    seed: np.random.SeedSequence,
    *,
    samples: int,
    out: Tensor | None = None,
) -> LossGradients:
    """Gradients at the weights ``point`` (p,), on ``samples`` random samples (all if fewer).

    With targets this is the empirical Fisher of the papers. Without (loss 'kl' to the dense model's
    outputs) its gradients would vanish at the dense point, one by one: labels are then drawn from
    the outputs, which gives the true Fisher, and the mean gradient is that of the divergence.

    ``out`` is memory for ``columns``, of the right shape or ignored. Raises as `linearise_loss`.
    """
    draw, labels = seed.spawn(2)
    few = data.sample(samples, np.random.default_rng(draw))
    weights = flat.weights(point)
    own = loss is divergence
    teacher = flat.parameters if own else None
    drawn = int(labels.generate_state(1, np.uint64)[0] >> np.uint64(1)) if own else None
    point_gradients = linearise_loss(
        model, flat.layers, weights, few, loss, dense_targets=teacher, sampled_labels=drawn
    )
    mean = point_gradients.mean
    if own:
        mean = mean_gradients(model, flat.layers, weights, few, loss, dense_targets=teacher)
    shape = (flat.p, point_gradients.n)
    columns = out if out is not None and tuple(out.shape) == shape else torch.empty(shape)
    for layer, span in zip(flat.layers, flat.spans(), strict=True):
        columns[span] = point_gradients.whole(layer.name).T.to("cpu")
    return LossGradients(columns, flat.join(mean), point_gradients.loss)
