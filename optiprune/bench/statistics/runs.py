"""The solves of a journal held against the best known energies."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from optiprune.bench.instances import BestKnown

__all__ = ["Run", "relative_gap", "runs_of"]

ROUNDING = 1e-9
"""Relative difference of energies that counts as none."""


@dataclass(frozen=True, slots=True)
class Run:
    """One solve.

    Attributes
    ----------
    gap : ``(energy - best) / |best|`` (without the division where best is 0); inf without an answer
    hit_s : CPU seconds until the target was reached, inf if it was not
    curve : ((CPU seconds, gap), ...) of the incumbents
    proven : whether the solver claims the optimum
    """

    instance: str
    sha256: str
    family: str
    n: int
    solver: str
    seed: int
    budget: float
    status: str
    gap: float
    hit_s: float
    cpu_s: float
    curve: tuple[tuple[float, float], ...]
    proven: bool

    @property
    def failed(self) -> bool:
        return self.status in ("error", "failed")

    @property
    def hit(self) -> bool:
        return math.isfinite(self.hit_s)


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
    out: dict[tuple[Any, ...], Run] = {}
    for r in records:
        if r["type"] != "solve" or r["status"] == "skipped":
            continue
        known = best.get(r["sha256"])
        reference = math.inf if known is None else known.energy
        curve = tuple((t, relative_gap(e, reference)) for t, e in r.get("trajectory") or ())
        hit = next((t for t, g in curve if g <= target_gap + ROUNDING), math.inf)
        energy = r.get("energy")
        gap = math.inf if energy is None else relative_gap(energy, reference)
        key = (r["sha256"], r["solver_key"], r["seed"], r["budget"], r["mode"])
        out[key] = Run(
            instance=r["instance"],
            sha256=r["sha256"],
            family=r["family"],
            n=r["n"],
            solver=r["solver"],
            seed=r["seed"],
            budget=r["budget"],
            status=r["status"],
            gap=gap,
            hit_s=hit,
            cpu_s=r.get("cpu_s") or 0.0,
            curve=curve,
            proven=r["status"] == "optimal",
        )
    return list(out.values())


def relative_gap(energy: float, best: float) -> float:
    """``(energy - best) / |best|``, never below 0; the plain difference where best is 0."""
    gap = (energy - best) / (abs(best) or 1.0)
    return max(0.0, gap)
