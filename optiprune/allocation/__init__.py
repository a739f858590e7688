"""How dense each layer should be: budgets, outlier shares, measured damages, an exact knapsack."""

from .costs import BudgetKind, LayerCost, layer_costs, spending_limit
from .counts import spend_rest, whole_counts
from .curve import DamageCurve, density_levels
from .errors import AllocationError
from .flops import multiply_adds_per_weight
from .knapsack import KnapsackSolution, solve_knapsack
from .measure import CheapPruning, layer_error_damages, loss_damages
from .owl import outlier_share, owl_densities
from .teacher import with_dense_targets

__all__ = [
    "AllocationError",
    "BudgetKind",
    "CheapPruning",
    "DamageCurve",
    "KnapsackSolution",
    "LayerCost",
    "density_levels",
    "layer_costs",
    "layer_error_damages",
    "loss_damages",
    "multiply_adds_per_weight",
    "outlier_share",
    "owl_densities",
    "solve_knapsack",
    "spend_rest",
    "spending_limit",
    "whole_counts",
    "with_dense_targets",
]
