"""Rules for the operations of traced models: a file for each kind."""

from . import barriers, contractions, convolutions, einsums, elementwise, reductions, shapes
from .registry import counts, rule_of

__all__ = ["counts", "rule_of"]

_FILES = (barriers, contractions, convolutions, einsums, elementwise, reductions, shapes)
