"""Problems to and from the models of dimod, Pyomo and scipy (each imported only when used)."""

from .dimod_models import from_bqm, from_cqm, to_bqm, to_cqm
from .pyomo_models import from_pyomo, to_pyomo
from .scipy_models import to_linear_constraints, to_milp

__all__ = [
    "from_bqm",
    "from_cqm",
    "from_pyomo",
    "to_bqm",
    "to_cqm",
    "to_linear_constraints",
    "to_milp",
    "to_pyomo",
]
