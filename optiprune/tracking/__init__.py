"""Follow a run in TensorBoard or MLflow, where they are installed."""

from .errors import TrackingError
from .scalars import Outcome
from .trackers import TRACKERS, Tracker, Tracking, require_installed

__all__ = ["TRACKERS", "Outcome", "Tracker", "Tracking", "TrackingError", "require_installed"]
