"""Rules for the operations of traced models: a file for each kind."""

from . import barriers, contractions, convolutions, elementwise, reductions, shapes
from .registry import rule_of

__all__ = ["rule_of"]

_FILES = (barriers, contractions, convolutions, elementwise, reductions, shapes)
