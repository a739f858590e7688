"""Rows of benchmarks.structure_exactness as a page."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.machine import describe

from .measured import Row

__all__ = ["page"]

_HEAD = """# Exactness of structural pruning

`python -m benchmarks.structure_exactness`: networks with random weights, biases and statistics
(`benchmarks/models/zoo`), of which a random plan removes about a third of the units of every group,
as far as the balances between them allow.

- *error*: largest difference of the smaller model from the masked one over the largest output, on
  inputs that the search for groups and the gate did not see; above 1e-5 the command fails. *moved*
  is the same between the dense and the masked model: what the plan changes, so that a small error
  means something.
- *parameters* and *multiply-adds*, in millions, of a batch of two. Both are predicted from the
  groups before anything is cut; parameters have to be those of the smaller model exactly, and
  multiply-adds what `torch.utils.flop_counter` counts (else a note says so; it counts neither
  recurrent layers nor products in groups).
- *ms*: median processor time of one call on one thread, dense and smaller in turns. The machine was
  busy with other work: trust the ratio, not the milliseconds. Widths after a random cut are odd
  numbers, and the transformers here are too small for their time to mean anything.
- *ONNX*: largest difference of the exported smaller model in onnxruntime from torch.
- *held*: how many kinds of barriers keep indices of weights, and the one that keeps most of them
  beside the model's inputs, outputs and sizes of kernels. *refused*: groups that the operations
  show, and that a trial of the program held (`confirmed`).

Rows are kept between runs, so that networks can be measured again alone: the revision below is that
of the last run, and other rows can be from revisions before it.
"""

# what every network has
_EVERYWHERE = ("the model returns it", "its input has a fixed number of channels")


def page(rows: Sequence[Row]) -> str:
    machine = "; ".join(f"{k}: {v}" for k, v in describe().items())
    good = [r for r in rows if r.error is not None]
    worst = max((r.error or 0.0 for r in good), default=0.0)
    ported = [float(r.onnx) for r in good if r.onnx[:1].isdigit()]
    lines = [
        _HEAD,
        f"{machine}.",
        "",
        f"{len(rows)} networks; {len(good)} have a smaller model, the worst error of which is "
        f"{worst:.1e}; {len(ported)} of these ran in onnxruntime, the worst difference is "
        f"{max(ported, default=0.0):.1e}.",
        "",
        "| network | groups | units | parameters | multiply-adds | error | moved | ms | ratio "
        "| ONNX | refused | held |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|---:|---|",
        *(_line(r) for r in rows),
    ]
    notes = [f"- {r.name}: {n}" for r in rows for n in r.notes]
    notes += [
        f"- {r.name}: {r.attributes} numbers on modules were changed with the sizes they repeat"
        for r in rows
        if r.attributes
    ]
    if notes:
        lines += ["", "## Notes", "", *notes]
    return "\n".join(lines) + "\n"


def _line(r: Row) -> str:
    if r.failed:
        return f"| {r.name} | FAILED: {r.failed} |" + " |" * 10
    top = [(reason, n) for reason, n in r.held if not reason.endswith(_EVERYWHERE)]
    held = f"{len(r.held)}" + (f"; {top[0][0]} ({top[0][1]:,})" if top else "")
    if len(held) > 160:
        held = held[:157] + "..."
    held = held.replace("|", "/").replace("\n", " ")
    if r.error is None:
        sizes = f"{r.parameters_before / 1e6:.3f} | {r.macs_before / 1e6:.1f}"
        return f"| {r.name} | 0 | 0 | {sizes} | | | | | | {r.unconfirmed} | {held} |"
    return (
        f"| {r.name} | {r.groups} | {r.units:,} "
        f"| {r.parameters_before / 1e6:.3f} -> {r.parameters_after / 1e6:.3f} "
        f"| {r.macs_before / 1e6:.1f} -> {r.macs_after / 1e6:.1f} "
        f"| {r.error:.1e} | {r.moved:.1e} | {1e3 * r.before_s:.1f} -> {1e3 * r.after_s:.1f} "
        f"| {r.before_s / r.after_s:.2f} | {r.onnx} | {r.unconfirmed} | {held} |"
    )
