"""First and second moments of a layer's inputs: all that the layer-wise baselines know of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.gram import LayerGram, collect_grams
from optiprune.curvature.layers import PrunableLayer

__all__ = ["LayerMoments", "collect_moments"]


@dataclass(frozen=True, slots=True, eq=False)
class LayerMoments:
    """Moments of the inputs that a layer meets, the same for the dense and the pruned weights.

    Attributes
    ----------
    gram : with ``same_inputs``: the papers compare pruned and dense weights on the same inputs
    means : (groups, cols) float64, mean of each input over the positions

    Raises
    ------
    ValueError
        If the Gram matrix is one of two different inputs, or the means do not fit it.
    """

    gram: LayerGram
    means: Tensor

    def __post_init__(self) -> None:
        if not self.gram.same_inputs:
            raise ValueError(
                "the Gram matrices are those of two different inputs (C is not H); the layer-wise "
                "baselines compare the pruned and the dense weights on the same inputs"
            )
        expected = (self.gram.groups, self.gram.cols)
        if tuple(self.means.shape) != expected:
            raise ValueError(f"means must have shape {expected}, got {tuple(self.means.shape)}")

    @classmethod
    def of(cls, gram: LayerGram) -> LayerMoments:
        """Those that were summed up together. Raises ValueError as above, or without a mean."""
        if gram.mean is None:
            raise ValueError("the Gram matrix has no means; take one of collect_grams or LayerWalk")
        return cls(gram, gram.mean)

    @property
    def H(self) -> Tensor:
        """(groups, cols, cols) float64, ``X'X / n``."""
        return self.gram.H

    @property
    def groups(self) -> int:
        return self.gram.groups

    @property
    def cols(self) -> int:
        return self.gram.cols

    def norms(self) -> Tensor:
        """Root mean square of each input, (groups, cols) float64: the papers' ||x_j||_2, up to one
        factor sqrt(n) for all, which changes no order."""
        return self.gram.norms()

    def variances(self) -> Tensor:
        """Variance of each input over the positions, (groups, cols) float64, >= 0."""
        return (self.H.diagonal(dim1=1, dim2=2) - self.means.square()).clamp(min=0.0)

    def by_row(self, inputs: Tensor, rows: int) -> Tensor:
        """(groups, cols) numbers of the inputs as (rows, cols): for each row those of its group."""
        return inputs.repeat_interleave(rows // self.groups, dim=0)


def collect_moments(
    model: nn.Module,
    layer: PrunableLayer,
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
    chunk: int = 256,
) -> LayerMoments:
    """Moments of the inputs of one layer, with some weights of the model replaced.

    Parameters
    ----------
    weights : parameter name -> tensor in the parameter's dtype, the prefix that was pruned
    chunk : samples sent through the model at once

    Sums are float64.

    Raises
    ------
    CalibrationError
        If the layer never runs or an input of it is NaN or infinite.
    """
    return LayerMoments.of(collect_grams(model, [layer], weights, None, data, chunk)[layer.name])
