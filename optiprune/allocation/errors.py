"""Why densities could not be given to the layers."""

from __future__ import annotations

__all__ = ["AllocationError"]


class AllocationError(ValueError):
    """No allocation fits, or the arguments of one do not; the message says by how much."""
