"""The solves of a journal as flat tables: CSV always, Parquet where pyarrow is installed."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from optiprune.durable import replacing

__all__ = ["COLUMNS", "write_results", "write_table"]

COLUMNS = (
    "instance", "family", "kind", "n", "k", "solver", "seed", "budget", "mode", "status", "energy",
    "bound", "cpu_s", "wall_s", "starts", "moves", "stop_reason", "message", "sha256", "session",
    "at",
)  # fmt: skip
"""Columns of results.csv; assignment and trajectory are in the journal alone."""


def write_results(folder: Path, records: Sequence[Mapping[str, Any]]) -> list[Path]:
    """results.csv, and results.parquet with pyarrow; each whole or not at all."""
    solves = [r for r in records if r["type"] == "solve"]
    rows = [{c: r.get(c) for c in COLUMNS} for r in solves]
    written = [write_table(folder / "results.csv", COLUMNS, rows)]
    if find_spec("pyarrow") is not None:
        import pyarrow
        import pyarrow.parquet

        path = folder / "results.parquet"
        table = pyarrow.table({c: [r[c] for r in rows] for c in COLUMNS})
        with replacing(path) as temporary:
            pyarrow.parquet.write_table(table, temporary)
        written.append(path)
    return written


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """A CSV file with a head; None is an empty cell."""
    with replacing(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as f:
        out = csv.DictWriter(f, columns, extrasaction="ignore", lineterminator="\n")
        out.writeheader()
        out.writerows(rows)
    return path
