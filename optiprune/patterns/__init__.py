"""Masks with a pattern: N:M groups and blocks. numpy and numba only."""

from .group_sweep import sweep_groups

__all__ = ["sweep_groups"]
