"""What is to be solved: binary and mixed-integer quadratic problems, and all they convert to.

numpy and scipy only. Conventions: x = 1 means keep; problems are minimised; a problem's energy is
the predicted change of loss, offset included.
"""

if __name__ != "optiprune.problems":
    raise ImportError(
        f"this package was imported as {__name__!r}; import it as 'optiprune.problems' "
        "(a second import under another name makes second classes and poisons numba's cache)"
    )

from .base import Problem, QuadraticProblem, as_binary
from .binary import QUBO, BudgetQP, CardinalityQP
from .errors import FileFormatError, InfeasibleProblemError, ProblemError
from .matrix import FactoredMatrix
from .miqp import MIQP

__all__ = [
    "MIQP",
    "QUBO",
    "BudgetQP",
    "CardinalityQP",
    "FactoredMatrix",
    "FileFormatError",
    "InfeasibleProblemError",
    "Problem",
    "ProblemError",
    "QuadraticProblem",
    "as_binary",
]
