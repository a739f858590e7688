"""Units of a model that can leave it, and the smaller model without them."""

from .attributes import AttributeChange
from .blocks import Block, WithoutBlocks, find_blocks, remove_blocks
from .confirm import confirmed
from .dead import WithoutDead, remove_dead
from .forms import (
    Converted,
    FormError,
    FormRecord,
    compacted,
    dense_kernel,
    dense_of_groups,
    densified,
    transposed_upsample,
    without_resize,
)
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
    "Block",
    "Compared",
    "Converted",
    "Extent",
    "FormError",
    "FormRecord",
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
    "WithoutBlocks",
    "WithoutDead",
    "compacted",
    "confirmed",
    "dense_kernel",
    "dense_of_groups",
    "densified",
    "find_blocks",
    "find_structure",
    "kept_of",
    "mask_units",
    "remove_blocks",
    "remove_dead",
    "shrink",
    "total",
    "transposed_upsample",
    "without_resize",
]
