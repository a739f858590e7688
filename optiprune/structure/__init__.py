"""Units of a model that can leave it, and the smaller model without them."""

from .attributes import AttributeChange
from .confirm import confirmed
from .gate import Compared, GateError
from .groups import Balance, Group, Held, Member, Structure, find_structure
from .plan import Plan, PlanError
from .shrink import Shrunk, mask_units, shrink
from .sizes import Extent, Product, Value, kept_of, total
from .trace import TraceError
from .units import Barrier

__all__ = [
    "AttributeChange",
    "Balance",
    "Barrier",
    "Compared",
    "Extent",
    "GateError",
    "Group",
    "Held",
    "Member",
    "Plan",
    "PlanError",
    "Product",
    "Shrunk",
    "Structure",
    "TraceError",
    "Value",
    "confirmed",
    "find_structure",
    "kept_of",
    "mask_units",
    "shrink",
    "total",
]
