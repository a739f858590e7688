"""Known pruning methods, written from their papers: what optiprune is compared with."""

from .alps import ALPS
from .dsnot import DSnoT
from .layerwise import prune_layerwise
from .magnitude import Magnitude
from .method import BaselineError, LayerBudget, LayerMethod
from .moments import LayerMoments, collect_moments
from .ria import RIA
from .sparsegpt import SparseGPT
from .swaps import SparseSwaps
from .wanda import Wanda

__all__ = [
    "ALPS",
    "LAYER_METHODS",
    "RIA",
    "BaselineError",
    "DSnoT",
    "LayerBudget",
    "LayerMethod",
    "LayerMoments",
    "Magnitude",
    "SparseGPT",
    "SparseSwaps",
    "Wanda",
    "collect_moments",
    "prune_layerwise",
]

_METHODS: tuple[LayerMethod, ...] = (
    Magnitude(),
    Wanda(),
    RIA(),
    SparseGPT(),
    ALPS(),
    DSnoT(),
    SparseSwaps(),
)
LAYER_METHODS: dict[str, LayerMethod] = {method.name: method for method in _METHODS}
"""Layer-wise methods with the settings of their papers, by name."""
