"""Pruning in training: a loop that can be resumed, and rules that decide while a model learns."""

from .config import TrainingConfig
from .errors import TrainingError
from .loops.callback import Callback, Step
from .loops.loop import TrainReport, train
from .pipeline import Phase, TrainingResult, prune_in_training
from .rules.behaviour import Behaviour
from .rules.feature_pruning import (
    feature_masks,
    feature_unit_scores,
    feature_units,
    feature_weight_scores,
)
from .rules.learning_weight import (
    LearningWeightOptions,
    LearningWeightResult,
    LearningWeightStep,
    prune_by_learning_weight,
)
from .rules.pruning_set import PruningSet, pruning_set
from .rules.sensitivity import (
    SensitivityOptions,
    SensitivityResult,
    SensitivityStep,
    prune_sensitive_units,
    prune_sensitive_weights,
)
from .rules.synthetic import SyntheticData, SyntheticOptions, synthesize
from .terms.concentration import plot_concentration, rank_correlations
from .terms.distillation import Distillation
from .terms.features import FeaturePairs
from .terms.torque import Torque, average_weight_scores
from .units.decide import Smaller, decide_units
from .units.ranking import lowest_units

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
