"""Pruning in training: a loop that can be resumed, and rules that decide while a model learns."""

from .behaviour import Behaviour
from .callback import Callback, Step
from .concentration import plot_concentration, rank_correlations
from .config import TrainingConfig
from .decide import Smaller, decide_units
from .distillation import Distillation
from .errors import TrainingError
from .feature_pruning import (
    feature_masks,
    feature_unit_scores,
    feature_units,
    feature_weight_scores,
)
from .features import FeaturePairs
from .learning_weight import (
    LearningWeightOptions,
    LearningWeightResult,
    LearningWeightStep,
    prune_by_learning_weight,
)
from .loop import TrainReport, train
from .pipeline import Phase, TrainingResult, prune_in_training
from .pruning_set import PruningSet, pruning_set
from .ranking import lowest_units
from .sensitivity import (
    SensitivityOptions,
    SensitivityResult,
    SensitivityStep,
    prune_sensitive_units,
    prune_sensitive_weights,
)
from .synthetic import SyntheticData, SyntheticOptions, synthesize
from .torque import Torque, average_weight_scores

__all__ = [
    "Behaviour",
    "Callback",
    "Distillation",
    "FeaturePairs",
    "LearningWeightOptions",
    "LearningWeightResult",
    "LearningWeightStep",
    "Phase",
    "PruningSet",
    "SensitivityOptions",
    "SensitivityResult",
    "SensitivityStep",
    "Smaller",
    "Step",
    "SyntheticData",
    "SyntheticOptions",
    "Torque",
    "TrainReport",
    "TrainingConfig",
    "TrainingError",
    "TrainingResult",
    "average_weight_scores",
    "decide_units",
    "feature_masks",
    "feature_unit_scores",
    "feature_units",
    "feature_weight_scores",
    "lowest_units",
    "plot_concentration",
    "prune_by_learning_weight",
    "prune_in_training",
    "prune_sensitive_units",
    "prune_sensitive_weights",
    "pruning_set",
    "rank_correlations",
    "synthesize",
    "train",
]
