"""Seeded problem generators: planted optima, pruning-like problems, standard instances."""

from .fisher import fisher_problem
from .layer import layer_miqp, layer_nm_problem, layer_problem
from .palubeckis import PALUBECKIS_BEST_KNOWN, PALUBECKIS_INSTANCES, palubeckis, palubeckis_instance
from .planted import Planted, planted_cardinality, planted_qubo

__all__ = [
    "PALUBECKIS_BEST_KNOWN",
    "PALUBECKIS_INSTANCES",
    "Planted",
    "fisher_problem",
    "layer_miqp",
    "layer_nm_problem",
    "layer_problem",
    "palubeckis",
    "palubeckis_instance",
    "planted_cardinality",
    "planted_qubo",
]
