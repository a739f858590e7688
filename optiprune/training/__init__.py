"""Pruning in training: a loop that can be resumed, and rules that decide while a model learns."""

from .callback import Callback, Step
from .concentration import plot_concentration, rank_correlations
from .decide import Smaller, decide_units
from .errors import TrainingError
from .learning_weight import (
    LearningWeightOptions,
    LearningWeightResult,
    LearningWeightStep,
    prune_by_learning_weight,
)
from .loop import TrainReport, train
from .pruning_set import PruningSet, pruning_set
from .ranking import lowest_units
from .sensitivity import (
    SensitivityOptions,
    SensitivityResult,
    SensitivityStep,
    prune_sensitive_units,
    prune_sensitive_weights,
)
from .torque import Torque, average_weight_scores

__all__ = [
    "Callback",
    "LearningWeightOptions",
    "LearningWeightResult",
    "LearningWeightStep",
    "PruningSet",
    "SensitivityOptions",
    "SensitivityResult",
    "SensitivityStep",
    "Smaller",
    "Step",
    "Torque",
    "TrainReport",
    "TrainingError",
    "average_weight_scores",
    "decide_units",
    "lowest_units",
    "plot_concentration",
    "prune_by_learning_weight",
    "prune_sensitive_units",
    "prune_sensitive_weights",
    "pruning_set",
    "rank_correlations",
    "train",
]
