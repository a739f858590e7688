"""How well and how fast the problems were solved."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from statistics import median

from optiprune.engine.records import StepRecord
from optiprune.report.document import Cell, Section, cells, table
from optiprune.report.numbers import count, duration, percent, whole
from optiprune.report.run_data import RunData

__all__ = ["solver_section"]


def solver_section(run: RunData, key: str) -> Section | None:
    """Statuses, gaps and seconds, over all and layer by layer."""
    steps = run.history
    if not steps:
        return None
    groups: dict[tuple[str, str], list[StepRecord]] = defaultdict(list)
    layers: dict[str, list[StepRecord]] = defaultdict(list)
    for r in steps:
        groups[r.solver, r.status].append(r)
        layers[r.layers[0] if len(r.layers) == 1 else "several layers at once"].append(r)
    columns = ["solver", "status", "steps", "stayed", "variables", "changed"]
    columns += ["median gap", "largest gap", "solver time", "time"]
    rows = [cells(solver, status, *_row(of)) for (solver, status), of in sorted(groups.items())]
    tables = [table("Answers of the solvers, by their status", columns, rows)]
    if len(layers) > 1:
        by_layer = [cells(name, *_row(of)) for name, of in layers.items()]
        columns = ["layer", *columns[2:]]
        tables.append(table("The same by layer", columns, by_layer, long=len(by_layer) > 15))
    return Section(key, "Solvers", tuple(_sentences(steps)), tables=tuple(tables))


def _row(steps: Sequence[StepRecord]) -> tuple[Cell, ...]:
    gaps = [r.gap for r in steps if r.gap is not None]
    return (
        count(len(steps)),
        count(sum(r.accepted for r in steps)),
        count(sum(r.size for r in steps)),
        count(sum(r.changed for r in steps)),
        percent(median(gaps) if gaps else None, 2),
        percent(max(gaps) if gaps else None, 2),
        duration(sum(r.solve_s for r in steps)),
        duration(sum(r.wall_s for r in steps)),
    )


def _sentences(steps: Sequence[StepRecord]) -> list[str]:
    out = []
    optimal = sum(r.status == "optimal" for r in steps)
    bounded = sum(r.gap is not None for r in steps)
    text = f"{optimal:,} of {whole(len(steps), 'step')} were solved to proven optimality"
    if bounded < len(steps):
        text += (
            f"; for {len(steps) - bounded:,} there is no bound, so that nothing is known of how "
            "far from the optimum they are"
        )
    out.append(f"{text}. A gap is the distance between the answer and a proven bound.")
    inside, whole_time = sum(r.solve_s for r in steps), sum(r.wall_s for r in steps)
    out.append(
        f"The solvers took {duration(inside).text}, summed over threads, and the steps "
        f"{duration(whole_time).text} in all."
    )
    return out
