"""Networks from their definitions, with random weights, on which structural pruning is checked."""

from .catalogue import ZOO, network
from .entry import Entry, Example, randomised

__all__ = ["ZOO", "Entry", "Example", "network", "randomised"]
