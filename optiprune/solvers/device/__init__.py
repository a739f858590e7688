"""Batch solving on a device: thousands of searches at once as tensor operations of torch.

The one package below `optiprune.solvers` that may import torch, and it does so inside functions:
nothing is loaded before the first solve.
"""

from .solver import TorchAnnealing

__all__ = ["TorchAnnealing"]
