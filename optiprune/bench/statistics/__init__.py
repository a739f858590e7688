"""What follows from the records: gaps, hit rates, times to target, profiles, curves."""

from .curves import GapCurve, gap_curves
from .profile import performance_profile
from .runs import Run, runs_of
from .summary import SummaryRow, summarise
from .times import Estimate, median_time_to_target, time_to_target

__all__ = [
    "Estimate",
    "GapCurve",
    "Run",
    "SummaryRow",
    "gap_curves",
    "median_time_to_target",
    "performance_profile",
    "runs_of",
    "summarise",
    "time_to_target",
]
