"""The solves of a journal held against the best known energies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optiprune.bench.instances import BestKnown
from optiprune.bench.records.best_known import refuted

__all__ = ["Run", "relative_gap", "runs_of"]

LATE = 1.2
"""Budgets of CPU time after which an incumbent came too late to count."""


@dataclass(frozen=True, slots=True)
class Run:
    """One solve.

    Attributes
    ----------
    solver : its label; a second solver under the same label has a number behind it
    solver_key, mode : which solver with which options, and by which rules (`Protocol.mode`)
    gap : `relative_gap` of the last incumbent that came in time; inf without one
    hit_s : CPU seconds until the target was reached, inf if it was not, or too late
    cpu_s : CPU seconds; a run that failed counts with its whole budget at least
    curve : ((CPU seconds, gap), ...) of the incumbents that came in time
    proven : whether the solver claims the optimum, and nobody has refuted it
    message : what went wrong, or whatever the solver had to say
    """

    instance: str
    sha256: str
    family: str
    n: int
    solver: str
    solver_key: str
    mode: str
    seed: int
    budget: float
    status: str
    gap: float
    hit_s: float
    cpu_s: float
    curve: tuple[tuple[float, float], ...]
    proven: bool
    message: str = ""

    @property
    def failed(self) -> bool:
        return self.status in _FAILED

    @property
    def hit(self) -> bool:
        return math.isfinite(self.hit_s)


_FAILED = ("error", "failed")


def runs_of(
    records: Iterable[Mapping[str, Any]],
    best: Mapping[str, BestKnown],
    *,
    target_gap: float = 0.0,
) -> list[Run]:
    """Runs that took place (skipped ones are left out), the last one of each repeated measurement.

    ``target_gap`` is the gap at which the target counts as reached; ValueError below 0.
    """
    if not target_gap >= 0:
        raise ValueError(f"the target gap must be >= 0, got {target_gap!r}")
    solves = [r for r in records if r["type"] == "solve" and r["status"] != "skipped"]
    names = _names(solves)
    out: dict[tuple[Any, ...], Run] = {}
    for r in solves:
        known = best.get(r["sha256"])
        curve: tuple[tuple[float, float], ...] = ()
        hit = math.inf
        if known is not None:
            points = [p for p in r.get("trajectory") or () if p[0] <= LATE * r["budget"]]
            curve = tuple((t, relative_gap(e, known.energy, known.tolerance)) for t, e in points)
            goal = (
                known.energy + known.tolerance + target_gap * _unit(known.energy, known.tolerance)
            )
            hit = next((t for t, e in points if e <= goal), math.inf)
        name = names[r["solver"], r["solver_key"]]
        # the same solver under two labels is two entries of the comparison
        key = (r["sha256"], name, r["seed"], r["budget"], r["mode"])
        out[key] = Run(
            instance=r["instance"],
            sha256=r["sha256"],
            family=r["family"],
            n=r["n"],
            solver=name,
            solver_key=r["solver_key"],
            mode=r["mode"],
            seed=r["seed"],
            budget=r["budget"],
            status=r["status"],
            gap=curve[-1][1] if curve else math.inf,
            hit_s=hit,
            cpu_s=_cost(r),
            curve=curve,
            proven=r["status"] == "optimal" and (known is None or refuted(r, known) is None),
            message=r.get("message") or "",
        )
    return list(out.values())


def _names(solves: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], str]:
    """``(label, key) -> name``: solvers that went by one label in turn are not averaged."""
    keys: dict[str, list[str]] = {}
    for r in solves:
        seen = keys.setdefault(r["solver"], [])
        if r["solver_key"] not in seen:
            seen.append(r["solver_key"])
    return {
        (label, key): label if at == 1 else f"{label} ({at})"
        for label, seen in keys.items()
        for at, key in enumerate(seen, 1)
    }


def _cost(r: Mapping[str, Any]) -> float:
    """CPU seconds. Whoever fails has used up its budget: one that crashes at once would otherwise
    be started again for nothing, and be the faster for it."""
    cpu = r.get("cpu_s")
    if cpu is None:
        return float(r["budget"])
    return float(max(cpu, r["budget"]) if r["status"] in _FAILED else cpu)


def relative_gap(energy: float, best: float, tolerance: float) -> float:
    """``(energy - best) / |best|``, the plain difference where best is 0; 0 up to ``tolerance``.

    The tolerance is that of the energies, see `BestKnown.tolerance`.
    """
    above = energy - best
    return above / _unit(best, tolerance) if above > tolerance else 0.0


def _unit(best: float, tolerance: float) -> float:
    """What gaps are relative to; a best of nothing but rounding is 0."""
    return abs(best) if abs(best) > tolerance else 1.0
