"""What the steps of a run that has not ended tell; they may be written to at this moment."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from optiprune.config.run_files import UNFINISHED
from optiprune.durable import JournalView
from optiprune.engine.reconstruction_result import LayerErrors, RowBlockRecord
from optiprune.engine.records import StepRecord
from optiprune.engine.result import LayerReport
from optiprune.engine.steps import Stored, stored_of
from optiprune.masks.file import unpack

from .errors import ReportError
from .run_data import RunData
from .stored_values import read_dataclass

__all__ = ["read_unfinished"]


def read_unfinished(folder: Path, config: Mapping[str, Any], faults: list[str]) -> RunData:
    """The run in ``folder/unfinished``: layers that are decided, and steps of the search."""
    view = JournalView.read(folder / UNFINISHED)
    layers: list[LayerReport] = []
    history: list[StepRecord] = []
    for entry in view.entries:
        try:
            if entry.key.startswith("layer/"):
                _layer(stored_of(view.content(entry)), layers, history)
            elif entry.key.startswith("search/"):
                _step(stored_of(view.content(entry)), history)
        except (OSError, SafetensorError, ReportError, ValueError, KeyError, TypeError) as e:
            faults.append(f"step {entry.key!r} cannot be read: {e}")
    if view.damaged:
        faults.append(f"{view.damaged} lines of the journal are damaged, or being written")
    prune = config.get("prune")
    asked = prune.get("sparsity") if isinstance(prune, Mapping) else None
    return RunData(
        name="/".join(folder.parts[-2:]),
        folder=folder,
        state="unfinished",
        sparsity_asked=float(asked) if isinstance(asked, (int, float)) else None,
        layers=tuple(layers),
        history=tuple(history),
        config=config,
        faults=tuple(faults),
    )


def _layer(stored: Stored, layers: list[LayerReport], history: list[StepRecord]) -> None:
    errors = read_dataclass(LayerErrors, stored.record["errors"], "layer")
    shape = errors.rows, errors.cols
    kept = int(unpack(stored.arrays["mask"], shape).sum())
    total = errors.rows * errors.cols
    reported = errors.reported()
    layers.append(LayerReport(errors.layer, errors.parameter, shape, kept, total, **reported))
    for table in stored.record["blocks"]:
        block = read_dataclass(RowBlockRecord, table, "block of rows")
        history.append(StepRecord.of_block(block, len(history), kept / total))


def _step(stored: Stored, history: list[StepRecord]) -> None:
    if "step" in stored.record:  # the end of a stage is a step, too, and tells nothing
        history.append(read_dataclass(StepRecord, stored.record["step"], "step"))
