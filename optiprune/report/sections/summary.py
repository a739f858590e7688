"""What a run came to, in words and a few numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from statistics import median

from optiprune.config.run_files import MASKS, MODEL
from optiprune.report.document import Cell, Section, cells, table
from optiprune.report.numbers import change, count, duration, number, percent, size, whole
from optiprune.report.run_data import RunData

__all__ = ["error_ratios", "promise", "summary_section"]


def summary_section(run: RunData, key: str) -> Section:
    """Sentences for somebody who does not know how it works, and the run's key numbers."""
    tables = []
    scores = [
        cells(name, *_before_after(run.dense.get(name), run.pruned.get(name)))
        for name in sorted({*run.dense, *run.pruned})
    ]
    if scores:
        caption = "Your own measurements of the model, before and after"
        tables.append(table(caption, ("measure", "dense", "pruned", "change"), scores))
    tables.append(table("Key numbers", ("what", "value"), list(_facts(run)), sorts=False))
    notes = () if run.report is None else run.report.notes
    if notes:
        rows = [cells(note) for note in notes]
        tables.append(table("Notes of the run", ("note",), rows, long=len(rows) > 5, sorts=False))
    return Section(key, "Summary", tuple(_sentences(run)), tables=tuple(tables))


def error_ratios(run: RunData) -> list[float]:
    """Layer by layer, the error in the end over that of the first mask; held out where measured."""
    out = []
    for layer in run.layers:
        pairs = (
            (layer.holdout_initial, layer.holdout_refit, layer.holdout_masked),
            (layer.error_initial, layer.error_refit, layer.error_masked),
        )
        for first, refitted, masked in pairs:
            last = masked if refitted is None else refitted
            if first and last is not None and math.isfinite(last / first):
                out.append(last / first)
                break
    return out


def promise(run: RunData) -> tuple[float, float, int] | None:
    """(predicted, measured, steps) over `RunData.judged`; None if there are none."""
    steps = run.judged
    if not steps:
        return None
    return sum(r.predicted for r in steps), sum(r.actual or 0.0 for r in steps), len(steps)


def _sentences(run: RunData) -> Iterator[str]:
    if run.layers:
        density = run.kept / run.total
        of = f"{count(run.total).text} weights in {whole(len(run.layers), 'layer')}"
        text = f"{percent(density).text} of the {of} were kept, {percent(1 - density).text} pruned"
        if run.state == "unfinished":
            text = f"So far: {text}"
        asked = run.sparsity_asked
        if asked is not None and abs(1 - density - asked) >= 0.001:
            text += f" ({percent(asked).text} were to be pruned)"
        yield f"{text}."
    for name in sorted(run.dense.keys() & run.pruned.keys()):
        before, after = run.dense[name], run.pruned[name]
        if before == after:
            yield f"{name} stayed at {number(after).text}."
        else:
            yield f"{name} went from {number(before).text} to {number(after).text}."
    report = run.report
    if report is not None and report.loss_dense is not None and report.loss_final is not None:
        text = f"The loss on held-out samples is {number(report.loss_dense).text} for the dense "
        text += f"model and {number(report.loss_final).text} for the pruned one"
        if report.loss_initial is not None:
            text += (
                f"; simple pruning, where the search began, gave {number(report.loss_initial).text}"
            )
        yield f"{text}."
    ratios = error_ratios(run)
    if ratios and run.objective == "reconstruction":
        worse = sum(r > 1 for r in ratios)
        text = "In the median layer, what the layer puts out is off from the dense layer by "
        text += f"{percent(median(ratios)).text} of the squared error that the first mask gives"
        if worse:
            text += f"; in {whole(worse, 'layer')} the error is larger than that"
        yield f"{text}."
    kept = promise(run)
    if kept is not None:
        predicted, actual, steps = kept
        if run.objective == "global":
            text = f"The {whole(steps, 'step')} that changed a mask and stayed promised to change "
            text += "the loss by "
        else:
            text = f"What the solver changed in {whole(steps, 'block')} of rows promised to change "
            text += "the layers' errors by "
        text += f"{change(predicted).text} in all; on samples that did not decide it was "
        text += f"{change(actual).text}"
        if predicted < 0:
            text += f", {percent(actual / predicted, 0).text} of what was promised"
        if run.objective != "global":
            text += " (rows that became worse there were undone)"
        yield f"{text}."
    model = run.sizes.get(_file(run, "model", MODEL))
    masks = run.sizes.get(_file(run, "masks", MASKS))
    if model and masks:
        yield (
            f"The model's file holds the zeros, too: it takes {size(model)}, as the dense one "
            f"does. Masks and re-fitted values, if there are any, take {size(masks)} beside it. "
            "Zeros make a model faster only where software or hardware skips them."
        )


def _facts(run: RunData) -> Iterator[tuple[Cell, ...]]:
    if run.layers:
        yield cells("weights kept", count(run.kept))
        yield cells("weights that took part", count(run.total))
        yield cells("density", percent(run.kept / run.total, 2))
    if run.sparsity_asked is not None:
        yield cells("sparsity asked for", percent(run.sparsity_asked, 2))
    yield cells("objective", run.objective or None)
    report = run.report
    if report is not None:
        losses = (
            ("loss, dense", report.loss_dense),
            ("loss, first mask", report.loss_initial),
            ("loss, after the search", report.loss_masked),
            ("loss, in the end", report.loss_final),
        )
        for name, loss in losses:
            if loss is not None:
                yield cells(name, number(loss))
        yield cells("solver", report.solver)
        yield cells("seed", report.seed)
        yield cells("samples to decide on", count(report.samples))
        yield cells("samples held out to judge", count(report.holdout_samples))
    yield cells("steps", count(len(run.history)))
    yield cells("steps that stayed", count(sum(r.accepted for r in run.history)))
    yield cells("time", duration(run.seconds))
    if run.version:
        yield cells("optiprune", run.version)
    for name, n in run.sizes.items():
        yield cells(f"file {name}", Cell(n, size(n)))


def _before_after(before: float | None, after: float | None) -> tuple[Cell, Cell, Cell]:
    difference = None if before is None or after is None else after - before
    return number(before), number(after), change(difference)


def _file(run: RunData, key: str, default: str) -> str:
    output = run.config.get("output")
    return str(output.get(key, default)) if isinstance(output, dict) else default
