"""The global loss as the engine sees it: a value and a linearisation at any weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from optiprune.config import CurvatureOptions
from optiprune.curvature import (
    CalibrationSet,
    PrunableLayer,
    SampleGradients,
    linearise_loss,
    mean_gradients,
    mean_loss,
)
from optiprune.curvature.loss_pass import sample_seed
from optiprune.curvature.losses import LossFunction, has_true_fisher

__all__ = ["GlobalLoss"]


@dataclass(frozen=True, slots=True)
class GlobalLoss:
    """Loss of a model on data, at weights other than its own.

    ``dense``: the dense weights when the targets are the dense model's outputs (KL), else None.
    """

    model: nn.Module
    layers: Sequence[PrunableLayer]
    loss: LossFunction
    options: CurvatureOptions
    dense: Mapping[str, Tensor] | None = None

    @property
    def true_fisher(self) -> bool:
        """Whether labels are sampled from the model's outputs."""
        return self.options.fisher == "true" or (
            self.options.fisher == "auto" and has_true_fisher(self.loss)
        )

    def value(self, weights: Mapping[str, Tensor], data: CalibrationSet) -> float:
        """Mean loss over ``data``."""
        return mean_loss(
            self.model, weights, data, self.loss, dense_targets=self.dense, chunk=self.options.chunk
        )

    def linearise(
        self, weights: Mapping[str, Tensor], data: CalibrationSet, seed: np.random.SeedSequence
    ) -> tuple[SampleGradients, dict[str, Tensor]]:
        """(per-sample gradients for the curvature, mean gradient of every layer) at ``weights``.

        Samples are drawn from ``data``; more for the gradient than for the curvature if asked.
        """
        draw, labels = seed.spawn(2)
        rng = np.random.default_rng(draw)
        opts = self.options
        n_gradient = max(opts.samples, opts.gradient_samples or 0)
        gradient_set = data.sample(n_gradient, rng)
        few = gradient_set.sample(opts.samples, rng)
        if self.true_fisher:
            # the gradient of sampled labels is noise around zero
            curvature = self._sample_gradients(weights, few, sample_seed(labels))
            return curvature, self.gradients(weights, gradient_set)
        curvature = self._sample_gradients(weights, few)
        if gradient_set.n <= few.n:
            return curvature, curvature.mean
        return curvature, self.gradients(weights, gradient_set)

    def gradients(self, weights: Mapping[str, Tensor], data: CalibrationSet) -> dict[str, Tensor]:
        """Mean gradient over ``data``: layer name -> float32, shape (rows, cols)."""
        return mean_gradients(
            self.model,
            self.layers,
            weights,
            data,
            self.loss,
            dense_targets=self.dense,
            chunk=self.options.chunk,
        )

    def _sample_gradients(
        self, weights: Mapping[str, Tensor], data: CalibrationSet, sampled: int | None = None
    ) -> SampleGradients:
        return linearise_loss(
            self.model,
            self.layers,
            weights,
            data,
            self.loss,
            dense_targets=self.dense,
            sampled_labels=sampled,
            chunk=self.options.chunk,
        )
