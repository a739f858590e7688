"""What is known of the solvers behind Pyomo: names, options, what they cannot take."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from optiprune.solvers.errors import BackendMissingError, SolverOptionError

from .backend import load_backend
from .highs_options import check_options

__all__ = ["Backend", "backend_of", "check_backend_options", "solver_factory"]


@dataclass(frozen=True, slots=True)
class Backend:
    """One solver of Pyomo.

    Attributes
    ----------
    names : Pyomo's names for it; the first one that is available is used
    miqp : whether it takes quadratic objectives over integer variables
    linearisation : how "auto" writes binary products; None hands them over as they are
    install : what to hand to ``pip install``, or None where pip does not have it
    seed, nodes, target, stall : its own options for the seed (31 bits), the node limit, the
        objective value to stop at, and the nodes without improvement; None where it has none
    seconds : its own option for the time limit, where Pyomo does not pass on the one it is given
    warm_start : whether a start reaches it through Pyomo
    defaults : options set unless the user sets them
    """

    names: tuple[str, ...]
    miqp: bool = True
    linearisation: Literal["fortet", "glover", "smaller"] | None = None
    install: str | None = None
    seed: str | None = None
    nodes: str | None = None
    target: str | None = None
    stall: str | None = None
    seconds: str | None = None
    warm_start: bool = True
    defaults: tuple[tuple[str, Any], ...] = ()


_HIGHS = Backend(
    names=("highs",),
    miqp=False,
    linearisation="smaller",
    install="highspy",
    seed="random_seed",
    nodes="mip_max_nodes",
    target="objective_target",
    # Pyomo 6.10.1 has a 'warmstart' for appsi_highs, but HiGHS's log shows that it is not taken up
    warm_start=False,
    defaults=(("threads", 1), ("mip_rel_gap", 0.0), ("mip_abs_gap", 1e-7)),
)
# SCIP writes products of binaries as AND constraints: the same as "fortet", which it proves faster
_SCIP = Backend(
    names=("scip_direct", "scip"),
    linearisation="fortet",
    install="pyscipopt",
    seed="randomization/randomseedshift",
    nodes="limits/totalnodes",
    target="limits/primal",
    stall="limits/stallnodes",
    # Pyomo reads SCIP's output from a pipe, in a Python thread; pyscipopt holds the interpreter
    # lock while SCIP runs. 64 KiB of log fill the pipe, and both wait for ever (pyomo 6.10.1 with
    # pyscipopt 6.3.0, seen on an MIQP of 8 variables): SCIP must be silent.
    # The warm start names the binaries alone; SCIP would drop it for its many missing values.
    defaults=(("display/verblevel", 0), ("heuristics/completesol/maxunknownrate", 1.0)),
)
_GUROBI = Backend(
    names=(),
    install="gurobipy",
    seed="Seed",
    nodes="NodeLimit",
    target="BestObjStop",
    # gurobi_direct of Pyomo 6.10.1 never looks at 'timelimit'
    seconds="TimeLimit",
    defaults=(("Threads", 1), ("MIPGap", 0.0)),
)
_LINEAR = Backend(names=(), miqp=False, linearisation="smaller")

_KNOWN: dict[str, Backend] = {
    "highs": _HIGHS,
    "appsi_highs": _HIGHS,
    # SCIP through pyscipopt, or through the executable 'scip' where that is installed
    "scip": _SCIP,
    "scip_direct": _SCIP,
    "scip_persistent": _SCIP,
    "glpk": _LINEAR,
    "cbc": _LINEAR,
    "appsi_cbc": _LINEAR,
    "gurobi": _GUROBI,
    "gurobi_direct": _GUROBI,
    "gurobi_persistent": _GUROBI,
    "appsi_gurobi": _GUROBI,
}
# Pyomo's name for "whatever executable is called so"; it would also take a misspelt solver
_GENERIC = ("asl", "py")


def backend_of(name: str) -> Backend:
    """What is known of a solver; a solver not in the table is assumed to take MIQPs."""
    known = _KNOWN.get(name, Backend(()))
    if name == "scip":
        return known
    return Backend(**{**_fields(known), "names": (name,)})


def solver_factory(name: str) -> tuple[str, Any]:
    """``(name used, a fresh solver object)`` of Pyomo.

    Raises
    ------
    BackendMissingError
        Without Pyomo, or if the solver is not installed.
    SolverOptionError
        If Pyomo does not know the solver.
    """
    load_backend("pyomo.environ", "pyomo", "pyomo")
    factory = load_backend("pyomo.opt", "pyomo", "pyomo").SolverFactory
    backend = backend_of(name)
    for candidate in backend.names:
        # asking the factory for an unregistered name logs a stack trace and returns a dummy
        if candidate not in set(factory):
            close = difflib.get_close_matches(name, list(factory), 3)
            hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
            listed = ", ".join(sorted(n for n in factory if n[0] != "_" and n not in _GENERIC))
            raise SolverOptionError(f"Pyomo has no solver {name!r}{hint}; it has: {listed}")
        solver = factory(candidate)
        if solver.available(exception_flag=False):
            return candidate, solver
    how = (
        f"install it with: pip install {backend.install}"
        if backend.install
        else f"install {name} and put its executable on the PATH"
    )
    raise BackendMissingError(f"Pyomo's solver '{name}' is not available here; {how}")


def check_backend_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuse unknown options of HiGHS and SCIP, which Pyomo would pass on or drop unseen.

    Raises `SolverOptionError`; options of other solvers are left to them.
    """
    backend = _KNOWN.get(name)
    if backend is _HIGHS:
        check_options(options)
    elif backend is _SCIP:
        known = load_backend("pyscipopt", "pyscipopt", "pyomo").Model().getParams()
        for key in options:
            if key == "display/verblevel":
                raise SolverOptionError(
                    "SCIP must stay silent here: its log fills a pipe that Pyomo cannot empty "
                    "while SCIP runs, and the solve would hang; leave out 'display/verblevel'"
                )
            if key not in known:
                close = difflib.get_close_matches(str(key), known, 3)
                hint = f" (did you mean {' or '.join(map(repr, close))}?)" if close else ""
                groups = ", ".join(sorted({k.split("/")[0] for k in known}))
                raise SolverOptionError(
                    f"SCIP has no parameter {key!r}{hint}; it has {len(known)} of them, in the "
                    f"groups: {groups}"
                )


def _fields(backend: Backend) -> dict[str, Any]:
    return {name: getattr(backend, name) for name in Backend.__slots__}
