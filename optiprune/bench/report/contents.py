"""What a report holds: the records against the best known answers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import MANIFEST, BestKnown, Instance
from optiprune.bench.instances.folder import read_manifest
from optiprune.bench.records import FILE, read_best_known, update_best
from optiprune.bench.records.best_known import merged
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


def known_of(folder: Path, instances: Iterable[Instance] = ()) -> dict[str, BestKnown]:
    """Best known answers of a results folder, of the instances kept in it, and of ``instances``.

    Whoever has the lower energy, and whoever has the higher bound. Raises `BenchError` for a file
    of the folder that is damaged.
    """
    path = folder / FILE
    tables = [
        read_best_known(path) if path.exists() else {},
        _kept(folder / "instances"),
        {i.sha256: i.best for i in instances if i.best is not None},
    ]
    out: dict[str, BestKnown] = {}
    for table in tables:
        for sha, best in table.items():
            out[sha] = merged(out[sha], best) if sha in out else best
    return out


def _kept(folder: Path) -> dict[str, BestKnown]:
    """What a run's own manifest knows: planted optima and published values, which a run that was
    killed did not get to write down."""
    if not (folder / MANIFEST).exists():
        return {}
    entries = read_manifest(folder)["instances"]
    try:
        return {
            e["sha256"]: BestKnown(**e["best_known"])
            for e in entries
            if e.get("best_known") is not None
        }
    except (KeyError, TypeError, AttributeError) as e:
        raise BenchError(f"{folder / MANIFEST}: a best known answer cannot be read: {e}") from None
