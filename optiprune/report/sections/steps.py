"""What every step promised, and what other data said."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TypeVar

from optiprune.engine.records import StepRecord
from optiprune.report.charts.plot import Plot, PlotArea
from optiprune.report.charts.scale import Scale
from optiprune.report.document import Section, Table, cells, table
from optiprune.report.numbers import change, count, duration, number, percent, whole
from optiprune.report.run_data import RunData

__all__ = ["energy_section", "evenly", "promise_section", "running_sums", "where"]

_MOST_DOTS, _MOST_ROWS = 1500, 200

T = TypeVar("T")


def promise_section(run: RunData, key: str) -> Section | None:
    """Predicted against measured change, a dot a step."""
    steps = [r for r in run.history if r.actual is not None and math.isfinite(r.predicted)]
    if not steps:
        return None
    proposed = [r for r in steps if r.predicted or r.actual]
    fell = sum((r.actual or 0.0) < 0 for r in proposed)
    paragraphs = (
        "The quadratic model of the loss predicts what a step will change. A dot on the diagonal "
        "kept that promise; above it, the step brought less than promised. Steps are judged by the "
        "measured change alone.",
        f"{whole(len(proposed), 'step')} of {len(steps):,} proposed a change; {fell:,} of them "
        "lowered the error on samples that did not decide.",
    )
    return Section(
        key,
        "Predicted against actual change",
        paragraphs,
        plots=(_scatter(steps),),
        tables=(_steps_table(run.history),),
    )


def _scatter(steps: Sequence[StepRecord]) -> Plot:
    shown = evenly(steps, _MOST_DOTS)
    pairs = [(r.predicted, r.actual or 0.0, r) for r in shown]
    sizes = sorted(abs(v) for p, a, _ in pairs for v in (p, a) if v and math.isfinite(v))
    near = 10.0 ** math.floor(math.log10(sizes[len(sizes) // 10])) if sizes else 1.0
    values = [v for p, a, _ in pairs for v in (p, a)]
    scale = Scale.symlog(values, near)
    area = PlotArea(scale, scale, height=360)
    area.line([(scale.low, scale.low), (scale.high, scale.high)], -1, dashed=True)
    area.line([(scale.low, 0.0), (scale.high, 0.0)], -1)
    area.legend.append(("as predicted", -1, "dashed"))
    for predicted, actual, r in pairs:
        fate = "stayed" if r.accepted else "rolled back"
        tip = f"step {r.step + 1}, {fate}: predicted {change(predicted).text}, "
        tip += f"measured {change(actual).text}"
        series = 0 if r.accepted else 1
        area.dot(predicted, actual, series, tip, hollow=not r.accepted)
    for label, series, form in (("stayed", 0, "dot"), ("rolled back", 1, "hollow")):
        if any((0 if r.accepted else 1) == series for r in shown):
            area.legend.append((label, series, form))
    text = f"{len(steps):,} steps"
    if len(shown) < len(steps):
        text += f", of which {len(shown):,} at equal distances are drawn"
    text += f"; both axes are linear up to {number(near, 1).text} and logarithmic beyond."
    title = "Change of the error at every step: predicted and measured"
    return area.plot(title, text, "predicted change", "measured change")


def energy_section(run: RunData, key: str) -> Section | None:
    """How the energy went over the steps: promised and measured sums, and the held-out loss."""
    steps = run.history
    if len(steps) < 2:
        return None
    plots = []
    objective = [(float(r.step + 1), r.objective) for r in steps if r.objective is not None]
    if objective:
        plots.append(_loss(objective))
    predicted, actual = running_sums(run)
    plots.append(_sums(steps, predicted, actual))
    over = "the steps that stayed"
    if run.objective != "global":
        over = "all rows that the solver changed, those that were undone included"
    paragraphs = (
        "An energy is the change of the error that the quadratic model predicts; 0 is no change. "
        f"The sums run over {over}.",
    )
    stages = _stages_table(run)
    return Section(key, "Energies over the steps", paragraphs, plots=tuple(plots), tables=stages)


def running_sums(run: RunData) -> tuple[list[float], list[float]]:
    """Predicted and measured change so far after every step, over `RunData.judged`."""
    judged = {id(r) for r in run.judged}
    of = [r if id(r) in judged else None for r in run.history]
    predicted = accumulate(0.0 if r is None else r.predicted for r in of)
    actual = accumulate(0.0 if r is None else r.actual or 0.0 for r in of)
    return list(predicted), list(actual)


def _loss(points: Sequence[tuple[float, float | None]]) -> Plot:
    pairs = [(x, math.nan if y is None else y) for x, y in points]
    area = PlotArea(_step_axis(pairs[-1][0]), Scale.linear([y for _, y in pairs]))
    area.line(evenly(pairs, _MOST_DOTS), 0)
    area.legend.append(("held-out loss", 0, "line"))
    text = f"From {number(pairs[0][1]).text} after the first step to {number(pairs[-1][1]).text} "
    text += f"after the last of {len(pairs):,}."
    return area.plot("Held-out loss after every step", text, "step", "loss")


def _sums(steps: Sequence[StepRecord], predicted: list[float], actual: list[float]) -> Plot:
    measured = any(r.actual is not None for r in steps)
    values = [*predicted, *(actual if measured else []), 0.0]
    area = PlotArea(_step_axis(float(len(steps))), Scale.linear(values))
    lines = (("predicted", predicted, 1, True), ("measured", actual, 0, False))
    for label, sums, series, dashed in lines if measured else lines[:1]:
        points = [(0.0, 0.0), *((i + 1.0, v) for i, v in enumerate(sums))]
        area.line(evenly(points, _MOST_DOTS), series, dashed=dashed)
        area.legend.append((label, series, "dashed" if dashed else "line"))
    text = (
        f"After {len(steps):,} steps the predicted changes add up to {change(predicted[-1]).text}"
    )
    text += f", the measured ones to {change(actual[-1]).text}." if measured else "."
    return area.plot("Energy so far", text, "step", "sum of changes")


def _steps_table(steps: Sequence[StepRecord]) -> Table:
    caption = "Every step"
    shown = list(steps)
    if len(steps) > _MOST_ROWS:
        caption = f"The {_MOST_ROWS} of {len(steps):,} steps that were furthest from their promise"
        apart = sorted(steps, key=_distance, reverse=True)[:_MOST_ROWS]
        shown = sorted(apart, key=lambda r: r.step)
    rows = [
        cells(
            r.step + 1,
            r.stage + 1,
            where(r),
            count(r.size),
            count(r.changed),
            change(r.predicted),
            change(r.actual),
            "stayed" if r.accepted else "rolled back",
            r.status,
            percent(r.gap, 2),
            duration(r.solve_s),
        )
        for r in shown
    ]
    columns = ("step", "stage", "layer", "variables", "changed", "predicted", "measured", "fate")
    return table(caption, (*columns, "status", "gap", "solver time"), rows, long=len(rows) > 15)


def _distance(r: StepRecord) -> float:
    gap = abs((r.actual or 0.0) - r.predicted) if r.actual is not None else 0.0
    return gap if math.isfinite(gap) else 0.0


def _stages_table(run: RunData) -> tuple[Table, ...]:
    rows = []
    for stage in sorted({r.stage for r in run.history}):
        of = [r for r in run.history if r.stage == stage]
        judged = [r for r in run.judged if r.stage == stage]
        last = next((r.objective for r in reversed(of) if r.objective is not None), None)
        rows.append(
            cells(
                stage + 1,
                count(len(of)),
                count(sum(r.accepted for r in of)),
                change(sum(r.predicted for r in judged) if judged else None),
                change(sum(r.actual or 0.0 for r in judged) if judged else None),
                number(last),
                percent(of[-1].density, 2),
            )
        )
    columns = ("stage", "steps", "stayed", "predicted", "measured", "loss", "density after it")
    return (table("Sums of the changes in every stage or sweep", columns, rows),)


def _step_axis(last: float) -> Scale:
    scale = Scale.linear([0.0, last], zero=True, steps=8)
    ticks = tuple((v, label) for v, label in scale.ticks if v <= last and float(v).is_integer())
    return Scale(0.0, last, ticks)


def where(r: StepRecord) -> str:
    """The layer of a step, or how many it has."""
    return r.layers[0] if len(r.layers) == 1 else f"{len(r.layers)} layers"


def evenly(items: Sequence[T], most: int) -> Sequence[T]:
    """At most so many, at equal distances, the first and the last among them."""
    if len(items) <= most:
        return items
    last = len(items) - 1
    return [items[round(i * last / (most - 1))] for i in range(most)]
