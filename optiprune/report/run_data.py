"""One run as it was found on disk."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from optiprune.engine.records import StepRecord
from optiprune.engine.result import LayerReport, RunReport

__all__ = ["RunData", "State"]

State = Literal["finished", "stopped", "unfinished"]


@dataclass(frozen=True, slots=True)
class RunData:
    """A run, whole or not.

    Attributes
    ----------
    name : of the folder and the one it is in; the whole path where others have that name, too
    folder : absolute
    state : "finished"; "stopped": it failed or was interrupted, and what was reached was written;
        "unfinished": there are steps alone, it goes on or was killed
    version : of optiprune that wrote it; "" if unknown
    failed : why it stopped; "" if it did not
    seconds : wall-clock time; None if unknown
    sparsity_asked : None if unknown
    dense, pruned : the user's numbers before and after; empty without
    report : None for an unfinished run
    layers : what is decided: those of the report, or of the steps on disk
    history : every step that could be read
    config : options as they were run, nested; empty if unknown
    masks : the mask file; None without one that can be read
    sizes : bytes of the files there, by their name
    faults : what is missing or damaged, in words
    """

    name: str
    folder: Path
    state: State
    version: str = ""
    failed: str = ""
    seconds: float | None = None
    sparsity_asked: float | None = None
    dense: Mapping[str, float] = field(default_factory=dict)
    pruned: Mapping[str, float] = field(default_factory=dict)
    report: RunReport | None = None
    layers: tuple[LayerReport, ...] = ()
    history: tuple[StepRecord, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    masks: Path | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    faults: tuple[str, ...] = ()

    @property
    def objective(self) -> str:
        """ "global", "reconstruction", or "" if neither the report nor the config says."""
        if self.report is not None:
            return self.report.objective
        table = self.config.get("prune", {})
        asked = table.get("objective", "") if isinstance(table, Mapping) else ""
        return asked if asked in ("global", "reconstruction") else ""

    @property
    def judged(self) -> tuple[StepRecord, ...]:
        """Steps whose promise can be held against a measurement of the same.

        Of the global search, those that stayed. A step of a reconstruction is a block of rows, and
        both its numbers are over all rows that the solver changed, those that were undone included.
        """
        steps = (r for r in self.history if r.actual is not None and math.isfinite(r.predicted))
        if self.objective == "global":
            return tuple(r for r in steps if r.accepted and r.changed)
        return tuple(r for r in steps if r.predicted)

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers)

    @property
    def total(self) -> int:
        return sum(layer.total for layer in self.layers)
