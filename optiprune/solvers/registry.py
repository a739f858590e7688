"""Solvers by name: built-in ones, ones registered at run time, and entry points of other packages.

A name maps to ``"module:Class"`` and is imported only when asked for. A third-party package adds a
solver with ::

    [project.entry-points."optiprune.solvers"]
    my-solver = "my_package.module:MySolver"

Without one, ``"module:Class"`` itself can be given wherever a solver is named.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any, cast

from .base import Solver
from .errors import SolverError, SolverOptionError, UnknownSolverError

__all__ = [
    "GROUP",
    "from_table",
    "get",
    "is_path",
    "names",
    "options_of",
    "register",
    "solver_class",
    "unregister",
]

GROUP = "optiprune.solvers"

_BUILT_IN = {
    "annealing": "optiprune.solvers.native.annealing:Annealing",
    "auto": "optiprune.solvers.native.auto:Auto",
    "cp-sat": "optiprune.solvers.adapters.cp_sat:CpSat",
    "dimod": "optiprune.solvers.adapters.dimod_sampler:DimodSampler",
    "exact": "optiprune.solvers.native.branch_and_bound:BranchAndBound",
    "exhaustive": "optiprune.solvers.native.exhaustive:Exhaustive",
    "greedy": "optiprune.solvers.native.greedy:Greedy",
    "highs": "optiprune.solvers.adapters.highs:Highs",
    "local-search": "optiprune.solvers.native.local_search:LocalSearch",
    "pyomo": "optiprune.solvers.adapters.pyomo_model:PyomoSolver",
    "tabu": "optiprune.solvers.native.tabu:Tabu",
    "torch": "optiprune.solvers.device.solver:TorchAnnealing",
}
_registered: dict[str, str | type] = {}
_PATH = re.compile(r"[\w.]+:\w+")
# of the protocol, to name what a class lacks
_MEMBERS = ("name", "capabilities", "solve", "solve_many")


@cache
def _entry_points() -> dict[str, str]:
    return {e.name: e.value for e in entry_points(group=GROUP)}


def _targets() -> dict[str, str | type]:
    # built-in names win over entry points: another package must not change what "annealing" means
    return {**_entry_points(), **_BUILT_IN, **_registered}


def names() -> list[str]:
    """Names of all solvers, sorted."""
    return sorted(_targets())


def register(name: str, target: str | type) -> None:
    """Add a solver class under a name, or the string ``"module:Class"`` to import on first use.

    Raises `SolverError` if the name is taken or no string, or the target is neither.
    """
    if not isinstance(name, str) or not name:
        raise SolverError(f"a solver's name is a string, got {name!r}")
    if not isinstance(target, type) and not is_path(target):
        raise SolverError(f"a solver is a class or a string 'module:Class', got {target!r}")
    if name in _targets():
        raise SolverError(f"a solver named {name!r} exists already; choose another name")
    _registered[name] = target


def is_path(name: object) -> bool:
    """Whether this is an import path ``"module:Class"``, and no name."""
    return isinstance(name, str) and _PATH.fullmatch(name) is not None


def unregister(name: str) -> None:
    """Take back a `register`. Raises `UnknownSolverError` if it was not registered."""
    if name not in _registered:
        raise UnknownSolverError(f"{name!r} was not registered at run time")
    del _registered[name]


def solver_class(name: str) -> type:
    """The class behind a name or an import path, imported now.

    Raises `UnknownSolverError`, `SolverError`.
    """
    targets = _targets()
    if name not in targets and not is_path(name):
        close = difflib.get_close_matches(str(name), targets, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise UnknownSolverError(
            f"no solver {name!r}{hint}; known: {', '.join(names())}; one of your own is named "
            f"'module:Class', or by an entry point of the group '{GROUP}'"
        )
    target = targets.get(name, name)
    if isinstance(target, type):
        return target
    shown = f"{name!r}" if target == name else f"{name!r} ({target})"
    module, _, attribute = target.partition(":")
    try:
        cls = getattr(import_module(module), attribute)
    except Exception as e:  # whatever a module of someone else's does on import
        words = f"{type(e).__name__}: {e}"
        raise SolverError(f"solver {shown} cannot be loaded: {words}") from e
    if not isinstance(cls, type):
        raise SolverError(f"solver {shown} is not a class")
    return cls


def options_of(cls: type) -> dict[str, Any]:
    """Hyperparameter names of a solver class, with their defaults (MISSING where there is none)."""
    if not dataclasses.is_dataclass(cls):
        return {}
    out: dict[str, Any] = {}
    for f in dataclasses.fields(cls):
        if f.init:
            has_factory = f.default_factory is not dataclasses.MISSING
            # mypy takes the sentinel's type for a part of the union whatever is compared
            out[f.name] = (
                cast("Callable[[], Any]", f.default_factory)() if has_factory else f.default
            )
    return out


def get(name: str, /, **options: Any) -> Solver:
    """Make the solver of that name, or import path, with the given hyperparameters.

    >>> get("annealing", sweeps=200)  # doctest: +SKIP
    >>> get("my_package.module:MySolver")  # doctest: +SKIP

    Raises
    ------
    UnknownSolverError
        No such solver; the message lists the known ones.
    SolverOptionError
        An option that the solver does not have, or a value that it refuses.
    """
    cls = solver_class(name)
    known = options_of(cls)
    if dataclasses.is_dataclass(cls):
        for key in options:
            if key not in known:
                close = difflib.get_close_matches(key, known, 1)
                hint = f" (did you mean {close[0]!r}?)" if close else ""
                raise SolverOptionError(
                    f"solver {name!r} has no option {key!r}{hint}; "
                    f"it has: {', '.join(known) or 'none'}"
                )
    try:
        solver = cls(**options)
    except SolverError:
        raise
    except (TypeError, ValueError) as e:
        raise SolverOptionError(f"solver {name!r}: {e}") from e
    if not isinstance(solver, Solver):
        lacks = ", ".join(repr(m) for m in _MEMBERS if not hasattr(solver, m))
        raise SolverError(
            f"solver {name!r} does not follow the Solver protocol: it lacks {lacks}; a class "
            "derived from BaseSolver needs 'name', 'capabilities' and '_solve' alone"
        )
    return solver


def from_table(table: Mapping[str, Any]) -> Solver:
    """Make a solver from a config table: ``{"name": "tabu", "tenure": 5}``.

    Raises `SolverOptionError` without a name, else as `get`.
    """
    options = dict(table)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise SolverOptionError(f"a solver table needs a 'name', one of: {', '.join(names())}")
    return get(name, **options)
