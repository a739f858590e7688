"""Short names for solvers of other projects, through the public adapters; all are optional."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

__all__ = ["ALIASES", "GROUPS", "Alias"]


@dataclass(frozen=True, slots=True)
class Alias:
    """A registered solver with options.

    Attributes
    ----------
    name, options : as for `optiprune.solvers.get`
    penalty : the option ``penalty`` of 'dimod' in units of the mean |field| at a random feasible
        assignment of each problem; None leaves it as it is
    max_n : size that the back end's licence allows, or None
    """

    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    penalty: float | None = None
    max_n: int | None = None


def _dimod(sampler: str, penalty: float | None = None, **options: Any) -> Alias:
    return Alias("dimod", {"sampler": sampler, **options}, penalty)


_SA = "dwave.samplers:SimulatedAnnealingSampler"
_TABU = "dwave.samplers:TabuSampler"
_OPENJIJ = "optiprune.bench.protocol.openjij_reads:OpenJijReads"
_BIFURCATION = "optiprune.bench.protocol.bifurcation:BifurcationSampler"

_DEFAULTS = {
    "dwave-sa": _dimod(_SA),
    "dwave-tabu": _dimod(_TABU, reads=1),
    "dwave-descent": _dimod("dwave.samplers:SteepestDescentSampler", reads=100),
    "openjij-sa": _dimod("openjij:SASampler"),
    "openjij-sqa": _dimod("openjij:SQASampler"),
    "simulated-bifurcation": _dimod(_BIFURCATION),
}
_MILP = {
    "scip": Alias("pyomo", {"solver": "scip"}),
    "gurobi": Alias("pyomo", {"solver": "gurobi_direct", "options": {"Threads": 1}}, max_n=200),
    "cbc": Alias("pyomo", {"solver": "cbc"}),
}


def _tuned() -> dict[str, Alias]:
    """A small grid for the two strong samplers of D-Wave: take the best row for each size.

    Penalties are those of `Alias`. Tabu search is cut into short runs: it tells nothing before its
    end. Of annealing with 100 to 5000 sweeps, tabu search with 5 to 100 ms, and penalties from 0.02
    to 1, these were the best on pruning problems of n = 64 and 128 at 0.3 s.
    """
    grid: dict[str, Alias] = {}
    for penalty in (0.05, 0.1, 0.2):
        for sweeps in (1000, 5000):
            options = {"parameters": {"num_sweeps": sweeps}, "reads": 5}
            grid[f"dwave-sa-{sweeps}-p{penalty:g}"] = _dimod(_SA, penalty, **options)
    for penalty in (0.1, 0.3):
        for timeout in (5, 20, 100):
            options = {"parameters": {"timeout": timeout}, "reads": 1}
            grid[f"dwave-tabu-{timeout}ms-p{penalty:g}"] = _dimod(_TABU, penalty, **options)
    return grid


def _openjij_tuned() -> dict[str, Alias]:
    """A grid for OpenJij's annealer; dense couplings, which took half the time of sparse ones.

    Of 100 to 1000 sweeps, 5 to 20 reads and penalties from 0.05 to 0.2, these led somewhere on
    pruning problems of n = 64 and 128 at 0.4 s.
    """
    grid: dict[str, Alias] = {}
    for penalty in (0.05, 0.1, 0.2):
        for sweeps, reads in ((100, 20), (1000, 5)):
            parameters = {"num_sweeps": sweeps, "sparse": False}
            alias = _dimod(_OPENJIJ, penalty, reads=reads, parameters=parameters)
            grid[f"openjij-sa-{sweeps}-p{penalty:g}"] = alias
    return grid


def _bifurcation_tuned() -> dict[str, Alias]:
    """A grid for simulated bifurcation, of 64 agents and 2000 steps: fewer were of no use."""
    parameters = {"max_steps": 2000}
    return {
        f"bifurcation-p{penalty:g}": _dimod(_BIFURCATION, penalty, reads=64, parameters=parameters)
        for penalty in (0.05, 0.1, 0.3)
    }


_TUNED = {
    "dwave-tuned": _tuned(),
    "openjij-tuned": _openjij_tuned(),
    "bifurcation-tuned": _bifurcation_tuned(),
}

ALIASES: Mapping[str, Alias] = MappingProxyType(
    {**_DEFAULTS, **_MILP, **{k: v for grid in _TUNED.values() for k, v in grid.items()}}
)

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "native": ("auto", "annealing", "tabu", "local-search", "greedy"),
        "peers": (*_DEFAULTS, "scip", "gurobi", "highs", "cp-sat"),
        **{group: tuple(grid) for group, grid in _TUNED.items()},
    }
)
"""Names that stand for several solvers in a list."""
