"""The local quadratic model of the loss: calibration data, Gram matrices, per-sample gradients."""

from .capture import forward_order
from .data import Batch, CalibrationError, CalibrationSet
from .fisher import SampleGradients, linearise_loss, mean_gradients, mean_loss
from .layers import LayerError, PrunableLayer, find_layers, require_matches
from .local_quadratic import LocalQuadratic

__all__ = [
    "Batch",
    "CalibrationError",
    "CalibrationSet",
    "LayerError",
    "LocalQuadratic",
    "PrunableLayer",
    "SampleGradients",
    "find_layers",
    "forward_order",
    "linearise_loss",
    "mean_gradients",
    "mean_loss",
    "require_matches",
]
