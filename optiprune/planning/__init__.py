"""What a run is going to do, and what it is going to need, before it is begun."""

from .available import available_bytes
from .estimate import check_memory, make_plan
from .plan import LayerPlan, RunPlan, TooLargeError

__all__ = ["LayerPlan", "RunPlan", "TooLargeError", "available_bytes", "check_memory", "make_plan"]
