"""Decide which weights of a trained torch model to keep, by combinatorial optimization."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

# Torch loads only when something that needs it is asked for: optiprune.solvers must not pay for it.
_LAZY = {
    "optimize_masks": "optiprune.api",
    "plan_masks": "optiprune.api",
    "prune_pretrained": "optiprune.offload",
    "MaskResult": "optiprune.api",
    "MaskSet": "optiprune.masks",
    "permute_channels": "optiprune.permutation",
    "PermutationReport": "optiprune.permutation",
    "Config": "optiprune.config",
    "problems": "optiprune.problems",
    "solvers": "optiprune.solvers",
}
__all__ = [
    "Config",
    "MaskResult",
    "MaskSet",
    "PermutationReport",
    "__version__",
    "optimize_masks",
    "permute_channels",
    "plan_masks",
    "problems",
    "prune_pretrained",
    "solvers",
]

if TYPE_CHECKING:
    from . import problems, solvers
    from .api import MaskResult, optimize_masks, plan_masks
    from .config import Config
    from .masks import MaskSet
    from .offload import prune_pretrained
    from .permutation import PermutationReport, permute_channels


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module 'optiprune' has no attribute {name!r}")
    module = import_module(_LAZY[name])
    return module if _LAZY[name].endswith("." + name) else getattr(module, name)


def __dir__() -> list[str]:
    return sorted(__all__)
