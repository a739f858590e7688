"""What is to be solved: binary and mixed-integer quadratic problems, and all they convert to.

numpy and scipy only; dimod, Pyomo and highspy are imported by the functions that need them.
Conventions: x = 1 means keep; problems are minimised; a problem's energy is the predicted change of
loss, offset included.
"""

if __name__ != "optiprune.problems":
    raise ImportError(
        f"this package was imported as {__name__!r}; import it as 'optiprune.problems' "
        "(a second import under another name makes second classes and poisons numba's cache)"
    )

from .base import Problem, QuadraticProblem, as_binary
from .binary import QUBO, BudgetQP, CardinalityQP
from .bounds import energy_range, flip_bounds
from .errors import FileFormatError, InfeasibleProblemError, ProblemError
from .exchange import (
    from_bqm,
    from_cqm,
    from_pyomo,
    to_bqm,
    to_cqm,
    to_linear_constraints,
    to_milp,
    to_pyomo,
)
from .files import (
    FORMATS,
    read_bqp,
    read_lp,
    read_mps,
    read_npz,
    read_problem,
    read_rudy,
    write_bqp,
    write_lp,
    write_mps,
    write_npz,
    write_problem,
    write_rudy,
)
from .fixing import Reduced, fix_variables, restrict
from .generators import (
    PALUBECKIS_BEST_KNOWN,
    PALUBECKIS_INSTANCES,
    Planted,
    fisher_problem,
    layer_miqp,
    layer_nm_problem,
    layer_problem,
    palubeckis,
    palubeckis_instance,
    planted_cardinality,
    planted_qubo,
)
from .ising import Ising, from_ising, to_ising
from .linearise import LinearModel, linearise
from .matrix import FactoredMatrix
from .maxcut import cut_value, maxcut_qubo
from .miqp import MIQP
from .penalty import PenaltyForm, to_penalty_qubo
from .repair import repair

__all__ = [
    "FORMATS",
    "MIQP",
    "PALUBECKIS_BEST_KNOWN",
    "PALUBECKIS_INSTANCES",
    "QUBO",
    "BudgetQP",
    "CardinalityQP",
    "FactoredMatrix",
    "FileFormatError",
    "InfeasibleProblemError",
    "Ising",
    "LinearModel",
    "PenaltyForm",
    "Planted",
    "Problem",
    "ProblemError",
    "QuadraticProblem",
    "Reduced",
    "as_binary",
    "cut_value",
    "energy_range",
    "fisher_problem",
    "fix_variables",
    "flip_bounds",
    "from_bqm",
    "from_cqm",
    "from_ising",
    "from_pyomo",
    "layer_miqp",
    "layer_nm_problem",
    "layer_problem",
    "linearise",
    "maxcut_qubo",
    "palubeckis",
    "palubeckis_instance",
    "planted_cardinality",
    "planted_qubo",
    "read_bqp",
    "read_lp",
    "read_mps",
    "read_npz",
    "read_problem",
    "read_rudy",
    "repair",
    "restrict",
    "to_bqm",
    "to_cqm",
    "to_ising",
    "to_linear_constraints",
    "to_milp",
    "to_penalty_qubo",
    "to_pyomo",
    "write_bqp",
    "write_lp",
    "write_mps",
    "write_npz",
    "write_problem",
    "write_rudy",
]
