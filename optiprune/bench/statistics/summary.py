"""One row for each budget, size and solver."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from optiprune.bench.instances import BestKnown

from .runs import Run
from .times import Estimate, median_time_to_target

__all__ = ["SummaryRow", "summarise"]


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """How a solver did on the instances of a size.

    Attributes
    ----------
    instances, runs, errors : how many; errors are runs that failed
    mean_gap, worst_gap : over runs with an answer; NaN without any
    answered : share of the runs with an answer
    hit_rate : share of the runs that met the target
    solved : instances on which at least one did
    ttt : `median_time_to_target`
    cpu_s : median CPU seconds of a run
    overran : runs that took over 1.2 budgets (and 50 ms)
    proven : runs that ended with a proof
    closed : instances whose best known energy is proven, by whomever
    """

    budget: float
    n: int
    solver: str
    instances: int
    runs: int
    errors: int
    answered: float
    mean_gap: float
    worst_gap: float
    hit_rate: float
    solved: int
    ttt: Estimate
    cpu_s: float
    overran: int
    proven: int
    closed: int


def summarise(runs: Sequence[Run], best: Mapping[str, BestKnown]) -> list[SummaryRow]:
    """Rows by budget, size and time to target; solvers that never hit the target by their gap."""
    groups: dict[tuple[float, int, str], list[Run]] = {}
    for r in runs:
        groups.setdefault((r.budget, r.n, r.solver), []).append(r)
    rows = []
    for (budget, n, solver), group in groups.items():
        gaps = [r.gap for r in group if math.isfinite(r.gap)]
        instances = {r.sha256 for r in group}
        rows.append(
            SummaryRow(
                budget=budget,
                n=n,
                solver=solver,
                instances=len(instances),
                runs=len(group),
                errors=sum(r.failed for r in group),
                answered=len(gaps) / len(group),
                mean_gap=statistics.fmean(gaps) if gaps else math.nan,
                worst_gap=max(gaps, default=math.nan),
                hit_rate=sum(r.hit for r in group) / len(group),
                solved=len({r.sha256 for r in group if r.hit}),
                ttt=median_time_to_target(group),
                cpu_s=statistics.median(r.cpu_s for r in group),
                overran=sum(r.cpu_s > 1.2 * budget + 0.05 for r in group),
                proven=sum(r.proven for r in group),
                closed=sum(s in best and best[s].proven for s in instances),
            )
        )
    return sorted(rows, key=_rank)


def _rank(row: SummaryRow) -> tuple[float, ...]:
    gap = row.mean_gap if math.isfinite(row.mean_gap) else math.inf
    return (row.budget, row.n, row.ttt.value, -row.hit_rate, gap)
