"""Write a suite as files with a manifest, so that others can use it as a public set."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from optiprune.bench.errors import BenchError
from optiprune.bench.machine import describe
from optiprune.durable import file_sha256, replacing
from optiprune.problems import (
    QUBO,
    CardinalityQP,
    Problem,
    ProblemError,
    to_penalty_qubo,
    write_bqp,
    write_problem,
)
from optiprune.problems.base import QuadraticProblem
from optiprune.problems.files import FORMATS as FILE_FORMATS

from .folder import MANIFEST, VERSION
from .instance import Instance

__all__ = ["FORMATS", "check_formats", "export_suite"]

FORMATS = (*FILE_FORMATS, "json")
"""Formats of an export: those of `optiprune.problems.files`, and plain JSON."""

Note = Callable[[str], None]


def export_suite(
    instances: Iterable[Instance],
    folder: Path,
    formats: Sequence[str] = ("npz",),
    *,
    request: dict[str, Any] | None = None,
    note: Note = print,
) -> Path:
    """Write every instance in every format that can hold it, and a manifest; return its path.

    A CardinalityQP becomes a bqp file in penalty form (``form: penalty``; its value and ``offset``
    add up to the energy, and minimisers are the optima); a rudy file is written for a max-cut. A
    file is whole or not there, and the manifest comes last.

    Parameters
    ----------
    request : what was asked for, written into the manifest
    note : called once for each format that some instances do not fit into

    Raises
    ------
    BenchError
        For an unknown format, or an instance that fits none of them.
    """
    check_formats(formats)
    folder.mkdir(parents=True, exist_ok=True)
    entries = []
    refused: dict[str, list[str]] = {}
    for instance in instances:
        problem = instance.load()
        files = []
        for name in formats:
            try:
                files.append(_write(problem, folder, instance.name, name))
            except ProblemError as e:
                refused.setdefault(f"{name}: {e}", []).append(instance.name)
        if not files:
            raise BenchError(f"{instance.name!r} ({instance.kind}) fits none of {formats}")
        entries.append({**instance.description(), "files": files})
    for why, names in refused.items():
        note(f"{len(names)} instances ({names[0]}, ...) not written as {why}")
    manifest = {
        "format": "optiprune-suite",
        "version": VERSION,
        "conventions": "minimised; energy = x'Qx + linear'x + offset; x = 1 means keep",
        "request": request,
        "made_on": describe("scikit-learn", at=Path(__file__).parent),
        "instances": entries,
    }
    path = folder / MANIFEST
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
    return path


def check_formats(formats: Sequence[str]) -> None:
    """Raise `BenchError` for a format that is not known, or none at all."""
    unknown = [f for f in formats if f not in FORMATS]
    if unknown or not formats:
        what = f"unknown format {', '.join(map(repr, unknown))}" if unknown else "no format given"
        raise BenchError(f"{what}; valid: {', '.join(FORMATS)}")


def _write(problem: Problem, folder: Path, stem: str, name: str) -> dict[str, Any]:
    """Write one file; its entry in the manifest. Raises `ProblemError` where it does not fit."""
    if name == "bqp" and isinstance(problem, CardinalityQP | QUBO):
        return _write_bqp(problem, folder, stem)
    path = folder / f"{stem}.{name}"
    if name == "json":
        _write_json(problem, path)
    else:
        write_problem(problem, path, format=name)
    return _entry(path, name, "exact")


def _entry(path: Path, name: str, form: str, **more: Any) -> dict[str, Any]:
    return {"file": path.name, "format": name, "form": form, "sha256": file_sha256(path), **more}


def _write_bqp(problem: CardinalityQP | QUBO, folder: Path, stem: str) -> dict[str, Any]:
    if isinstance(problem, QUBO) and problem.offset == 0:
        path = folder / f"{stem}.bqp"
        write_bqp(problem, path)
        return _entry(path, "bqp", "exact")
    form = to_penalty_qubo(problem)
    path = folder / f"{stem}.penalty.bqp"
    write_bqp(QUBO(form.qubo.Q, form.qubo.linear), path)
    return _entry(
        path, "bqp", "penalty", offset=float(form.qubo.offset), coefficient=form.coefficient
    )


def _write_json(problem: Problem, path: Path) -> None:
    """``{"type", "n", "k", "groups", "offset", "linear", "Q": [[i, j, q], ...]}``, i <= j.

    An entry with i < j stands for both sides, so that it adds ``2 q x_i x_j``.
    """
    if not isinstance(problem, QuadraticProblem) or type(problem) not in (QUBO, CardinalityQP):
        raise ProblemError(f"JSON holds a QUBO or CardinalityQP, not a {type(problem).__name__}")
    upper = np.triu(problem.dense(np.float64))
    row, col = np.nonzero(upper)
    entries = zip(row.tolist(), col.tolist(), upper[row, col].tolist(), strict=True)
    table: dict[str, Any] = {"type": type(problem).__name__, "n": problem.n}
    if isinstance(problem, CardinalityQP):
        table |= {"k": problem.k.tolist(), "groups": problem.groups.tolist()}
    table |= {"offset": problem.offset, "linear": problem.linear.tolist(), "Q": list(entries)}
    with replacing(path) as temporary, open(temporary, "w", encoding="ascii") as f:
        json.dump(table, f, separators=(",", ":"))
        f.write("\n")
