"""One row for each budget, mode, size and solver."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optiprune.bench.instances import BestKnown

from .runs import LATE, Run
from .times import Estimate, median_time_to_target

__all__ = ["SummaryRow", "summarise"]


@dataclass(frozen=True, slots=True)
class SummaryRow:
    """How a solver did on the instances of a size.

    Attributes
    ----------
    mode : the rules of the measurement, see `optiprune.bench.protocol.Protocol.mode`
    instances, runs, errors : how many; errors are runs that failed
    seeds : runs of the instance that has the fewest
    mean_gap, worst_gap : over runs with an answer; NaN without any
    answered : share of the runs with an answer in time
    hit_rate : share of the runs that met the target
    solved : instances on which at least one did
    ttt : `median_time_to_target`
    cpu_s : median CPU seconds of a run
    overran : runs that took over 1.2 budgets (and 50 ms)
    proven : runs that ended with a proof that nobody has refuted
    closed : instances whose best known energy is proven, by whomever
    message : the most frequent one of the runs that failed
    """

    budget: float
    mode: str
    n: int
    solver: str
    instances: int
    runs: int
    seeds: int
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
    message: str


def summarise(runs: Sequence[Run], best: Mapping[str, BestKnown]) -> list[SummaryRow]:
    """Rows by budget, size, mode and time to target; solvers that never hit it by their gap."""
    groups: dict[tuple[float, str, int, str], list[Run]] = {}
    for r in runs:
        groups.setdefault((r.budget, r.mode, r.n, r.solver), []).append(r)
    rows = []
    for (budget, mode, n, solver), group in groups.items():
        gaps = [r.gap for r in group if math.isfinite(r.gap)]
        instances = Counter(r.sha256 for r in group)
        messages = Counter(r.message for r in group if r.failed).most_common(1)
        rows.append(
            SummaryRow(
                budget=budget,
                mode=mode,
                n=n,
                solver=solver,
                instances=len(instances),
                runs=len(group),
                seeds=min(instances.values()),
                errors=sum(r.failed for r in group),
                answered=len(gaps) / len(group),
                mean_gap=statistics.fmean(gaps) if gaps else math.nan,
                worst_gap=max(gaps, default=math.nan),
                hit_rate=sum(r.hit for r in group) / len(group),
                solved=len({r.sha256 for r in group if r.hit}),
                ttt=median_time_to_target(group),
                cpu_s=statistics.median(r.cpu_s for r in group),
                overran=sum(r.cpu_s > LATE * budget + 0.05 for r in group),
                proven=sum(r.proven for r in group),
                closed=sum(s in best and best[s].proven for s in instances),
                message=messages[0][0] if messages else "",
            )
        )
    return sorted(rows, key=_rank)


def _rank(row: SummaryRow) -> tuple[Any, ...]:
    gap = row.mean_gap if math.isfinite(row.mean_gap) else math.inf
    return (row.budget, row.n, row.mode, row.ttt.value, -row.hit_rate, gap)
