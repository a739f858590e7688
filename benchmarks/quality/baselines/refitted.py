"""Any whole-model method, and then least squares on its masks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet, PrunableLayer
from optiprune.curvature.losses import LossFunction
from optiprune.curvature.stages import LayerWalk
from optiprune.refit import refit_rows

from .layerwise import POSITIONS
from .model_method import ModelMethod, PrunedWeights

__all__ = ["Refitted", "refit_layers"]


def refit_layers(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    masks: Mapping[str, Tensor],
    values: Mapping[str, Tensor],
    data: CalibrationSet,
    *,
    damping: float = 1e-4,
    chunk: int = 256,
) -> dict[str, Tensor]:
    """Values on the masks that give each layer's dense outputs back, by least squares.

    Layer by layer in forward order, with the inputs that the re-fitted layers before it give and
    the dense model's outputs as targets. No value may make its row's error larger. Parameters as in
    `PrunedWeights`; ``damping`` as of `optiprune.refit.refit_rows`; ``chunk`` samples go
    through the model at once. The model is not written to.
    """
    named = dict(model.named_parameters())
    dense = {layer.parameter: named[layer.parameter].detach() for layer in layers}
    walk = LayerWalk(model, layers, dense, [data], chunk, per_input=POSITIONS)
    walk.weights.update(values)
    for stage in walk:
        for layer in stage.layers:
            gram, shape = stage.grams[0][layer.name], (layer.rows, layer.cols)
            rows, now = dense[layer.parameter].reshape(shape).double(), walk.weights
            fit = refit_rows(
                gram.H,
                gram.cross(rows),
                gram.target_energy(rows),
                masks[layer.parameter].reshape(shape),
                now[layer.parameter].reshape(shape),
                damping,
            )
            now[layer.parameter] = fit.values.reshape(layer.shape).to(dense[layer.parameter])
    return {name: walk.weights[name] for name in dense}


@dataclass(frozen=True)
class Refitted:
    """``method``, whose kept weights are then re-fitted to the dense layers' outputs.

    Attributes
    ----------
    method : what chooses the mask and the first values
    damping : of the least squares, in units of the mean diagonal of the Gram matrix
    """

    method: ModelMethod
    damping: float = 1e-4

    @property
    def name(self) -> str:
        return f"{self.method.name}+refit"

    @property
    def moves_weights(self) -> bool:
        return True

    @property
    def reference(self) -> str:
        return f"{self.method.reference}; then least squares on each layer's dense outputs"

    def prune(
        self,
        model: nn.Module,
        layers: Sequence[PrunableLayer],
        data: CalibrationSet,
        *,
        density: float,
        loss: LossFunction,
        seed: np.random.SeedSequence,
        seconds: float | None = None,
    ) -> PrunedWeights:
        """As `ModelMethod.prune`; ``seconds`` limit the method, the refit comes on top."""
        masks, values = self.method.prune(
            model, layers, data, density=density, loss=loss, seed=seed, seconds=seconds
        )
        return masks, refit_layers(model, layers, masks, values, data, damping=self.damping)
