"""What ran beside the search: allocation of densities, tuning of blocks and of the whole model."""

from __future__ import annotations

import math

from optiprune.report.charts.plot import PlotArea
from optiprune.report.charts.scale import Scale
from optiprune.report.document import Cell, Section, cells, table
from optiprune.report.numbers import change, count, duration, number, percent
from optiprune.report.run_data import RunData

from .layers import layer_axis

__all__ = ["allocation_section", "tuning_section", "window_section"]


def allocation_section(run: RunData, key: str) -> Section | None:
    """How the layers came to their densities."""
    found = None if run.report is None else run.report.allocation
    if found is None:
        return None
    outliers = any(x.outliers is not None for x in found.layers)
    measured = any(x.levels for x in found.layers)
    columns = ["layer", "kept", "of", "density"]
    columns += ["outliers"] if outliers else []
    columns += ["levels measured", "damage at the lowest", "damage at the highest"]
    columns = columns if measured else columns[:-3]
    rows = []
    for x in found.layers:
        row: list[Cell | str] = [x.name, count(x.kept), count(x.total), percent(x.density)]
        row += [percent(x.outliers, 2)] if outliers else []
        if measured:
            row += [count(len(x.levels))]
            row += [number(x.levels[i][1] if x.levels else None) for i in (0, -1)]
        rows.append(cells(*row))
    spent = percent(found.spent / found.limit if found.limit else None)
    paragraphs = [
        f"Method '{found.method}' shared out a budget of {found.budget}: {spent.text} of "
        f"{count(round(found.limit)).text} was spent. It took {duration(found.seconds).text}."
    ]
    if found.predicted is not None and found.predicted_uniform is not None:
        paragraphs.append(
            f"The measured curves ({found.curve}) predict a damage of "
            f"{number(found.predicted).text} with these densities and of "
            f"{number(found.predicted_uniform).text} with equal ones."
        )
    listed = table("Densities that were given", columns, rows, long=len(rows) > 40)
    return Section(key, "Allocation of densities", tuple(paragraphs), tables=(listed,))


def window_section(run: RunData, key: str) -> Section | None:
    """The tuning of each block, as soon as its layers were pruned."""
    windows = () if run.report is None else run.report.windows
    if not windows:
        return None
    rows = [
        cells(
            w.block,
            number(w.before),
            number(w.after),
            change(w.after / w.before - 1 if w.before else None),
            count(w.kept),
            duration(w.seconds),
        )
        for w in windows
    ]
    columns = ("block", "before", "after", "relative change", "pass that stayed", "time")
    listed = table("Relative error of every block's output", columns, rows, long=len(rows) > 40)
    values = [v for w in windows for v in (w.before, w.after) if v > 0]
    area = PlotArea(layer_axis(len(windows)), Scale.log(values))
    for i, w in enumerate(windows, 1):
        for label, value, series in (("before", w.before, 1), ("after", w.after, 0)):
            if value > 0 and math.isfinite(value):
                tip = f"{w.block}, {label}: {number(value).text}"
                area.dot(i, value, series, tip, hollow=series == 1)
    area.legend += [("before tuning", 1, "hollow"), ("after tuning", 0, "dot")]
    better = sum(w.after < w.before for w in windows)
    text = f"Tuning lowered the error of {better} of {len(windows)} blocks."
    plot = area.plot("Error of every block's output", text, "block", "relative error")
    return Section(key, "Tuning of blocks", plots=(plot,), tables=(listed,))


def tuning_section(run: RunData, key: str) -> Section | None:
    """The passes over the whole model."""
    found = None if run.report is None else run.report.tuning
    if found is None:
        return None
    losses = [(0, math.nan if found.before is None else found.before)]
    losses += list(enumerate(found.epochs, 1))
    rows = [
        cells(i, number(loss), "stayed" if i == found.kept else "")
        for i, loss in losses
        if not math.isnan(loss) or i
    ]
    listed = table(
        f"Loss '{found.loss}' after every pass; pass 0 is before the tuning",
        ("pass", "loss", "what stayed"),
        rows,
    )
    points = [(float(i), loss) for i, loss in losses if math.isfinite(loss)]
    ticks = layer_axis(max(1, len(found.epochs))).ticks
    across = Scale(0.0, float(max(1, len(found.epochs))), ((0.0, "0"), *ticks))
    area = PlotArea(across, Scale.linear([loss for _, loss in points]))
    area.line(points, 0)
    for i, loss in points:
        kept = i == found.kept
        area.dot(i, loss, 0, f"pass {i:g}: {number(loss).text}", hollow=not kept)
    area.legend += [("pass that stayed", 0, "dot"), ("other passes", 0, "hollow")]
    text = f"{len(found.epochs)} passes; "
    text += f"the values of pass {found.kept} stayed." if found.kept else "none of them stayed."
    plot = area.plot("Loss over the passes of the tuning", text, "pass", "loss")
    paragraphs = (f"The tuning took {duration(found.seconds).text}.",)
    title = "Tuning of the whole model"
    return Section(key, title, paragraphs, plots=(plot,) if points else (), tables=(listed,))
