"""How the energy fell while solvers were at work."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain, pairwise
from statistics import median

from optiprune.engine.records import StepRecord
from optiprune.report.charts.plot import Plot, PlotArea
from optiprune.report.charts.scale import Scale
from optiprune.report.document import Section, Table, cells, table
from optiprune.report.numbers import change, count, duration, percent, whole
from optiprune.report.run_data import RunData

from .steps import evenly, where

__all__ = ["paths_section"]

_DRAWN, _LISTED = 6, 200
_NEAR = 0.99  # of the change that a solver ended with

Points = Sequence[tuple[float, float]]


def paths_section(run: RunData, key: str) -> Section | None:
    """Incumbents of the steps over the seconds of their solves; None where none were told."""
    told = [r for r in run.history if _falls(r.trajectory)]
    if not told:
        return None
    whose = "" if run.objective == "global" else " (of a block of rows: the row promised most)"
    paragraphs = [
        "An incumbent is the best answer that a solver has so far, and its energy the change of "
        f"the error that the quadratic model predicts for it{whose}. "
        f"{whole(len(told), 'step')} of {len(run.history):,} had more than one.",
    ]
    # of a block of rows the seconds are those of many problems
    timed = [r for r in told if r.solve_s > 0] if run.objective == "global" else []
    if timed:
        share = median(min(1.0, _near(r) / r.solve_s) for r in timed)
        paragraphs.append(
            f"The median solver had {percent(_NEAR, 0).text} of the change that it ended with "
            f"after {percent(share, 0).text} of its time."
        )
    return Section(
        key,
        "Energies inside the solvers",
        tuple(paragraphs),
        plots=(_plot(evenly(told, _DRAWN), len(told)),),
        tables=(_table(evenly(told, _LISTED), len(told)),),
    )


def _plot(steps: Sequence[StepRecord], of: int) -> Plot:
    points = [[(1e3 * t, 100 * e / r.trajectory[-1][1]) for t, e in r.trajectory] for r in steps]
    times, shares = zip(*chain.from_iterable(points), strict=True)
    area = PlotArea(Scale.log(times), Scale.linear(shares, steps=6))
    for series, r in enumerate(steps):
        area.line(_stairs(points[series]), series)
        for (x, y), (t, e) in zip(points[series], r.trajectory, strict=True):
            tip = f"step {r.step + 1}: {change(e).text} after {duration(t).text}"
            area.dot(x, y, series, tip)
        area.legend.append((f"step {r.step + 1}, {where(r)}", series, "dot"))
    text = f"{len(steps):,} of {of:,} steps" + (", at equal distances" if len(steps) < of else "")
    text += ". 100 % is the change that the solver ended with."
    title = "Energy while the solver was at work"
    return area.plot(title, text, "milliseconds", "% of the last change")


def _table(steps: Sequence[StepRecord], of: int) -> Table:
    caption = "First and last incumbents"
    if len(steps) < of:
        caption += f" of {len(steps):,} of {of:,} steps, at equal distances"
    columns = ["step", "layer", "incumbents"]
    columns += ["first", "first after", "last", "last after", "99 % after"]
    rows = [
        cells(
            r.step + 1,
            where(r),
            count(len(r.trajectory)),
            change(r.trajectory[0][1]),
            duration(r.trajectory[0][0]),
            change(r.trajectory[-1][1]),
            duration(r.trajectory[-1][0]),
            duration(_near(r)),
        )
        for r in steps
    ]
    return table(caption, columns, rows, long=len(rows) > 15)


def _falls(points: Points) -> bool:
    numbers = all(map(math.isfinite, chain.from_iterable(points)))
    return len(points) > 1 and numbers and points[-1][1] < 0


def _near(r: StepRecord) -> float:
    """Seconds until an incumbent had nearly the last one's energy, which is below 0."""
    last = r.trajectory[-1][1]
    return next(t for t, e in r.trajectory if e <= _NEAR * last)


def _stairs(points: Points) -> Points:
    """An incumbent holds until the next one."""
    out = [points[0]]
    for (_, before), (t, now) in pairwise(points):
        out += [(t, before), (t, now)]
    return out
