"""Lists of solvers as one writes them: ``auto,annealing:sweeps=50,restarts=0,dwave-sa``."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from optiprune import solvers
from optiprune.bench.errors import BenchError
from optiprune.problems import Problem
from optiprune.problems.base import QuadraticProblem
from optiprune.problems.linearise import constraint_rows
from optiprune.problems.repair import repair
from optiprune.solvers import Solver
from optiprune.solvers.registry import GROUP, is_path

from .peers import ALIASES, GROUPS

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

__all__ = ["SolverSpec", "parse_solvers"]


@dataclass(frozen=True, slots=True)
class SolverSpec:
    """A solver of the registry with options, under the label of the tables.

    Attributes
    ----------
    penalty : see `optiprune.bench.protocol.peers.Alias`
    max_n : larger problems are skipped
    """

    label: str
    name: str
    options: dict[str, Any] = field(default_factory=dict)
    penalty: float | None = None
    max_n: int | None = None

    @property
    def key(self) -> str:
        """What decides whether two measurements are of the same solver."""
        return json.dumps([self.name, self.options, self.penalty], sort_keys=True, default=repr)

    def make(self, problem: Problem | None = None) -> Solver:
        """The solver, for a problem where options depend on it. Raises as `solvers.get`."""
        options = dict(self.options)
        if self.penalty is not None and isinstance(problem, QuadraticProblem):
            rows, _, _ = constraint_rows(problem)
            if rows.shape[0]:
                options["penalty"] = self.penalty * typical_field(problem)
        return solvers.get(self.name, **options)


def typical_field(problem: QuadraticProblem) -> float:
    """Mean |change of energy| of one flip at a random feasible assignment; 1 if it is 0."""
    rng = np.random.default_rng(0)
    x = repair(problem, rng.integers(0, 2, problem.n))
    return float(np.abs(problem.fields(x)).mean()) or 1.0


def parse_solvers(text: str) -> list[SolverSpec]:
    """Read a comma-separated list of solvers, aliases and groups.

    Options follow a colon, ``key=value`` with values as in TOML (a bare word is a string); further
    options of the same solver follow after commas: ``tabu:tenure=5,iterations=0,greedy`` is two
    solvers. ``label@solver`` gives another label. A class that is not registered is named by its
    import path, ``my_package:RandomSwaps:swaps=5``.

    Raises
    ------
    BenchError
        For an option before any solver, an empty list, one label for two solvers, or two for one.
    UnknownSolverError
        For a name that is no solver, alias or group, nor an import path.
    """
    specs: dict[str, SolverSpec] = {}
    labels: dict[str, str] = {}
    for names, options in _entries(text):
        label, at, name = names.rpartition("@")
        for member in GROUPS.get(name, (name,)):
            spec = _spec(label if at else None, member, options)
            if specs.setdefault(spec.label, spec).key != spec.key:
                raise BenchError(f"two solvers are labelled {spec.label!r}; give one by label@name")
            other = labels.setdefault(spec.key, spec.label)
            if other != spec.label:  # it would be measured once, and have one row
                raise BenchError(f"{other!r} and {spec.label!r} are the same solver; name it once")
    if not specs:
        raise BenchError("no solver was named; `optiprune solvers` lists them")
    return list(specs.values())


def _spec(label: str | None, name: str, options: dict[str, Any]) -> SolverSpec:
    shown = ",".join(f"{k}={_plain(v)}" for k, v in sorted(options.items()))
    label = label or (f"{name}:{shown}" if shown else name)
    if name in ALIASES and name not in solvers.names():
        alias = ALIASES[name]
        chosen = {**alias.options, **options}
        return SolverSpec(label, alias.name, chosen, alias.penalty, alias.max_n)
    if name not in solvers.names() and not is_path(name):
        known = [*solvers.names(), *ALIASES, *GROUPS]
        close = difflib.get_close_matches(name, known, 1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise solvers.UnknownSolverError(
            f"no solver {name!r}{hint}; known here: {', '.join(known)}; one of your own is named "
            f"'module:Class', or by an entry point of the group '{GROUP}'"
        )
    return SolverSpec(label, name, options)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _entries(text: str) -> list[tuple[str, dict[str, Any]]]:
    out: list[tuple[str, dict[str, Any]]] = []
    for part in _split(text):
        head, equals, value = part.partition("=")
        if not equals:
            out.append((part.rstrip(":"), {}))
            continue
        name, colon, key = head.rpartition(":")  # the last: an import path has one of its own
        if colon:
            out.append((name.strip(), {}))
        if not out:
            raise BenchError(f"{part!r} is an option before any solver")
        out[-1][1][key.strip()] = _value(value.strip())
    return out


def _split(text: str) -> Sequence[str]:
    """At commas outside of brackets and quotes; empty parts are dropped."""
    parts, depth, quote, start = [], 0, "", 0
    for at, c in enumerate(text):
        if quote:
            quote = "" if c == quote else quote
        elif c in "\"'":
            quote = c
        elif c in "[{(":
            depth += 1
        elif c in "]})":
            depth -= 1
        elif c == "," and depth == 0:
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [p.strip() for p in parts if p.strip()]


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
