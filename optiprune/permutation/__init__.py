"""Channels of a dense model in an order of which an N:M pattern keeps more."""

from .permute import permute_channels
from .report import PermutationReport, PermutedGroup

__all__ = ["PermutationReport", "PermutedGroup", "permute_channels"]
