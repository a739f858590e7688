"""Pruning in training: a loop that can be resumed, and rules that decide while a model learns."""

from .callback import Callback, Step
from .errors import TrainingError
from .loop import TrainReport, train

__all__ = ["Callback", "Step", "TrainReport", "TrainingError", "train"]
