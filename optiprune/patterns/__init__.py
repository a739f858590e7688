"""Masks with a pattern: N:M groups and blocks. numpy and numba only."""

from .block_exchange import exchange_blocks
from .group_sweep import sweep_groups
from .spec import Block, PatternError, parse

__all__ = ["Block", "PatternError", "exchange_blocks", "parse", "sweep_groups"]
