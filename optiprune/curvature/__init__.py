"""The local quadratic model of the loss: calibration data, Gram matrices, per-sample gradients."""

from .capture import forward_order
from .data import Batch, CalibrationError, CalibrationSet
from .fisher import SampleGradients, linearise_loss, mean_gradients, mean_loss
from .gates import gate_gradients
from .gram import LayerGram, collect_grams
from .layers import LayerError, PrunableLayer, find_layers, require_matches
from .local_quadratic import LocalQuadratic

__all__ = [
    "Batch",
    "CalibrationError",
    "CalibrationSet",
    "LayerError",
    "LayerGram",
    "LocalQuadratic",
    "PrunableLayer",
    "SampleGradients",
    "collect_grams",
    "find_layers",
    "forward_order",
    "gate_gradients",
    "linearise_loss",
    "mean_gradients",
    "mean_loss",
    "require_matches",
]
