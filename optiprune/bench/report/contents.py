"""What a report holds: the records against the best known answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiprune.bench.instances import BestKnown
from optiprune.bench.records import FILE, read_best_known, update_best
from optiprune.bench.statistics import Run, SummaryRow, runs_of, summarise

__all__ = ["Report", "known_of", "make_report"]


@dataclass(frozen=True, slots=True)
class Report:
    """All that follows from the records.

    Attributes
    ----------
    faults : claims of solvers that others refuted
    """

    records: list[dict[str, Any]]
    best: dict[str, BestKnown]
    runs: list[Run]
    rows: list[SummaryRow]
    faults: list[str]
    target_gap: float


def make_report(
    records: Sequence[dict[str, Any]],
    known: Mapping[str, BestKnown] | None = None,
    *,
    target_gap: float = 0.0,
) -> Report:
    """Hold the records against the best known answers, those among the records included.

    Parameters
    ----------
    known : by content hash, from before
    target_gap : relative gap at which the target of hit rate and time to target is reached
    """
    best, faults = update_best(known or {}, records)
    runs = runs_of(records, best, target_gap=target_gap)
    return Report(list(records), best, runs, summarise(runs, best), faults, target_gap)


def known_of(folder: Path, instances: Iterable[Any] = ()) -> dict[str, BestKnown]:
    """Best known answers of a results folder and of instances, the better of both."""
    path = folder / FILE
    out = read_best_known(path) if path.exists() else {}
    for i in instances:
        if i.best is not None and (i.sha256 not in out or i.best.energy < out[i.sha256].energy):
            out[i.sha256] = i.best
    return out
