"""What a tracker cannot start with."""

from __future__ import annotations

__all__ = ["TrackingError"]


class TrackingError(ValueError):
    """A tracker that is not installed or cannot be reached."""
