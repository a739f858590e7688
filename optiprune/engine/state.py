"""The weights that take part, flat over all layers, and which of them are kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.curvature.layers import PrunableLayer

__all__ = ["WeightState"]


class WeightState:
    """Dense weights, current values and mask of all layers, as flat vectors of length P.

    The model itself is never written: `weights` gives the tensors to run it with.

    Attributes
    ----------
    layers : the layers, in order; layer i owns positions ``starts[i] .. starts[i + 1]``
    dense : (P,) the weights as they were given; float32, or float64 if a layer's are, so that none
        loses digits
    values : (P,) in the same dtype, what each weight is when kept (dense until it is re-fitted)
    mask : (P,) bool
    """

    def __init__(self, model: nn.Module, layers: Sequence[PrunableLayer]) -> None:
        self.layers = list(layers)
        params = dict(model.named_parameters())
        self._params = [params[layer.parameter] for layer in self.layers]
        self.starts = np.cumsum([0] + [layer.numel for layer in self.layers])
        double = any(p.dtype == torch.float64 for p in self._params)
        dtype = torch.float64 if double else torch.float32
        flat = [p.detach().to(dtype).reshape(-1).cpu() for p in self._params]
        self.dense: npt.NDArray[np.floating] = torch.cat(flat).numpy().copy()
        self.values: npt.NDArray[np.floating] = self.dense.copy()
        self.mask: npt.NDArray[np.bool_] = np.ones(self.n, dtype=bool)

    @property
    def n(self) -> int:
        return int(self.starts[-1])

    @property
    def density(self) -> float:
        return float(np.count_nonzero(self.mask)) / self.n

    def span(self, i: int) -> slice:
        """Positions of layer i."""
        return slice(int(self.starts[i]), int(self.starts[i + 1]))

    def layer_of(self, index: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Layer number of each flat position."""
        return np.asarray(np.searchsorted(self.starts, index, side="right") - 1)

    def weights(self, mask: npt.NDArray[np.bool_] | None = None) -> dict[str, Tensor]:
        """Parameter name -> masked weights, on the device and in the dtype of the parameter."""
        return {layer.parameter: self.layer_weights(i, mask) for i, layer in enumerate(self.layers)}

    def layer_weights(self, i: int, mask: npt.NDArray[np.bool_] | None = None) -> Tensor:
        """`weights` of layer i alone; ``mask`` (P,)."""
        span, p = self.span(i), self._params[i]
        kept, values = (self.mask if mask is None else mask)[span], self.values[span]
        flat = torch.from_numpy(np.where(kept, values, np.zeros_like(values)))
        return flat.reshape(self.layers[i].shape).to(device=p.device, dtype=p.dtype)

    def fitted_weights(self) -> dict[str, Tensor]:
        """`weights` of the layers in which a kept weight is no longer at its dense value."""
        moved = self.mask & (self.values != self.dense)
        weights = self.weights()
        return {
            layer.parameter: weights[layer.parameter]
            for i, layer in enumerate(self.layers)
            if moved[self.span(i)].any()
        }

    def dense_weights(self) -> dict[str, Tensor]:
        """Parameter name -> the model's own tensor, unmasked."""
        return {
            layer.parameter: p.detach() for layer, p in zip(self.layers, self._params, strict=True)
        }

    def masks(self) -> dict[str, Tensor]:
        """Parameter name -> bool tensor of the parameter's shape."""
        flat = torch.from_numpy(self.mask.copy())
        return {
            layer.parameter: flat[self.span(i)].reshape(layer.shape).to(p.device)
            for i, (layer, p) in enumerate(zip(self.layers, self._params, strict=True))
        }

    def set_masks(self, masks: Mapping[str, Tensor]) -> None:
        for i, layer in enumerate(self.layers):
            self.mask[self.span(i)] = masks[layer.parameter].reshape(-1).cpu().numpy()

    def set_values(self, values: Mapping[str, Tensor]) -> None:
        """Take over re-fitted values where a layer has them (shape of the parameter)."""
        for i, layer in enumerate(self.layers):
            if layer.parameter in values:
                kept = self.mask[self.span(i)]
                new = values[layer.parameter].detach().double().reshape(-1).cpu().numpy()
                # a pruned weight that is restored later comes back at its dense value
                self.values[self.span(i)] = np.where(kept, new, self.dense[self.span(i)])
