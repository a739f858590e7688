"""The records: one JSON object a cell, in the journal of a results folder."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from optiprune.bench.records import JOURNAL, Journal, read_journal

from .grid import record_key

__all__ = ["FAILED", "Journal", "decode", "encode", "latest", "read_records"]

FAILED = ("failed", "crashed", "timeout")
_NEEDED = ("key", "model", "density", "method", "kind", "seed", "samples", "loss", "status")


def encode(value: Any) -> Any:
    """JSON has no infinite numbers: "inf", "-inf" and "nan" stand for them."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, Mapping):
        return {k: encode(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [encode(v) for v in value]
    return value


def decode(record: dict[str, Any]) -> dict[str, Any]:
    """The numbers of a record as `encode` found them."""

    def number(value: Any) -> Any:
        return float(value) if value in ("inf", "-inf", "nan") else value

    out = dict(record)
    for name in ("metrics", "dense", "layer_errors"):
        if isinstance(out.get(name), dict):
            out[name] = {k: number(v) for k, v in out[name].items()}
    if "layer_error" in out:
        out["layer_error"] = number(out["layer_error"])
    return out


def read_records(folder: Path) -> list[dict[str, Any]]:
    """The cells of a results folder, the last record of each.

    Raises ValueError if the folder holds none, or a line that is no record.
    """
    if not (folder / JOURNAL).is_file():
        raise ValueError(
            f"{folder} holds no results of the quality benchmark; "
            f"`optiprune bench quality --out {folder}` makes some"
        )
    found = latest(read_journal(folder))
    if not found:
        raise ValueError(f"{folder / JOURNAL} holds no cell of the quality benchmark")
    return list(found.values())


def latest(lines: Iterable[Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """key -> the last record of each cell; other lines (sessions) are left out.

    Raises ValueError for a cell that lacks what a report needs, or whose key is not that of its
    fields: somebody has changed it by hand.
    """
    found: dict[str, dict[str, Any]] = {}
    for line in lines:
        if line.get("type") != "cell":
            continue
        missing = [name for name in _NEEDED if name not in line]
        if missing:
            raise ValueError(f"a record lacks {', '.join(missing)}: {str(dict(line))[:200]}")
        names = ("model", "density", "method", "options", "seed", "samples", "loss")
        if (
            record_key({n: line.get(n, {} if n == "options" else None) for n in names})
            != line["key"]
        ):
            raise ValueError(
                f"the record of {line['model']} at {line['density']} by {line['method']} has the "
                f"key {line['key']!r}, which is not that of its fields"
            )
        found.pop(line["key"], None)  # the order is that of the last records
        found[line["key"]] = decode(dict(line))
    return found
