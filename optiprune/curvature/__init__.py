"""The local quadratic model of the loss: calibration data, Gram matrices, per-sample gradients."""

from .data import Batch, CalibrationError, CalibrationSet
from .fisher import SampleGradients, linearise_loss, mean_loss
from .layers import LayerError, PrunableLayer, find_layers
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
    "linearise_loss",
    "mean_loss",
]
