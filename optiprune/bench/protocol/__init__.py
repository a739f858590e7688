"""How a solve is measured: solver lists, the plan, one solve, the worker process, the run."""

from .peers import ALIASES, GROUPS
from .plan import Protocol, Task, plan
from .runner import Progress, run_bench
from .spec import SolverSpec, parse_solvers
from .usable import usable_solvers

__all__ = [
    "ALIASES",
    "GROUPS",
    "Progress",
    "Protocol",
    "SolverSpec",
    "Task",
    "parse_solvers",
    "plan",
    "run_bench",
    "usable_solvers",
]
