"""Read the folder that `optiprune prune` writes; nothing in it is changed or run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from optiprune.config import ConfigError, read_toml
from optiprune.config.run_files import CONFIG, HISTORY, MASKS, MODEL, SUMMARY, UNFINISHED
from optiprune.engine.records import StepRecord
from optiprune.engine.result import RunReport

from .errors import ReportError
from .run_data import RunData
from .stored_values import read_dataclass
from .unfinished import read_unfinished

__all__ = ["read_run", "read_runs", "run_files"]


def read_runs(folders: Sequence[Path]) -> list[RunData]:
    """All of them, with names that differ.

    Raises
    ------
    ReportError
        As `read_run`; the same folder twice.
    """
    runs = [read_run(folder) for folder in folders]
    seen: set[Path] = set()
    for run in runs:
        if run.folder in seen:
            raise ReportError(f"{run.folder} is given twice")
        seen.add(run.folder)
    names = [run.name for run in runs]
    if len(set(names)) == len(names):
        return runs
    return [replace(run, name=str(run.folder)) for run in runs]


def read_run(folder: Path) -> RunData:
    """The run in a folder, finished or not.

    Without a summary there is no report but of the steps of a run that has not ended. Anything else
    that is missing or damaged stands in `RunData.faults`.

    Raises
    ------
    ReportError
        No such folder, no run in it, or a summary that cannot be read or is of something else.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        what = "is a file, not the folder of a run" if folder.exists() else "does not exist"
        raise ReportError(f"{folder} {what}")
    faults: list[str] = []
    if not (folder / SUMMARY).exists():
        if (folder / UNFINISHED / CONFIG).exists():
            config = _config(folder / UNFINISHED, faults)
            return read_unfinished(folder, config, faults)
        raise ReportError(
            f"{folder} holds no run of `optiprune prune`: neither {SUMMARY} nor "
            f"{UNFINISHED}/{CONFIG} is there"
        )
    summary = _summary(folder / SUMMARY)
    report = read_dataclass(RunReport, summary["report"], f"{folder / SUMMARY}: report")
    config = _config(folder, faults)
    failed = summary.get("failed")
    if not failed and (folder / UNFINISHED / CONFIG).exists():
        faults.append(
            "another run was begun in this folder and has not ended; this report is of the one "
            "before it"
        )
    masks = folder / _file_name(config, "masks", MASKS)
    if not masks.is_file():
        faults.append(f"{masks.name} is missing: there are no pictures of the masks")
    files = [*run_files(folder, config)]
    return RunData(
        name="/".join(folder.parts[-2:]),
        folder=folder,
        state="stopped" if failed else "finished",
        version=_text(summary.get("optiprune")),
        failed=_text(failed),
        seconds=_number(summary.get("seconds")),
        sparsity_asked=_number(summary.get("sparsity_asked")),
        dense=_numbers(summary.get("dense")),
        pruned=_numbers(summary.get("pruned")),
        report=report,
        layers=report.layers,
        history=_history(folder / _file_name(config, "history", HISTORY), report.steps, faults),
        config=config,
        masks=masks if masks.is_file() else None,
        sizes={p.name: p.stat().st_size for p in files if p.is_file()},
        faults=tuple(faults),
    )


def run_files(folder: Path, config: Mapping[str, Any]) -> list[Path]:
    """The files of a run, there or not; what writes into its folder must leave them alone."""
    named = [("masks", MASKS), ("model", MODEL), ("history", HISTORY)]
    names = [_file_name(config, key, default) for key, default in named]
    return [folder / name for name in (*names, CONFIG, SUMMARY)]


def _summary(path: Path) -> dict[str, Any]:
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as e:
        raise ReportError(f"{path} is damaged: it is not JSON ({e})") from e
    if not isinstance(table, dict) or not isinstance(table.get("report"), dict):
        raise ReportError(
            f"{path} is not the summary of `optiprune prune`: it has no table 'report'"
        )
    return table


def _config(folder: Path, faults: list[str]) -> dict[str, Any]:
    """Only shown, and asked for file names: an option of another version is no fault."""
    path = folder / CONFIG
    if not path.exists():
        faults.append(f"{path.name} is missing: the options of the run are not known")
        return {}
    try:
        return dict(read_toml(path))
    except (ConfigError, OSError) as e:
        faults.append(f"the options of the run cannot be read: {e}")
        return {}


def _file_name(config: Mapping[str, Any], key: str, default: str) -> str:
    """A name in the run's own folder; a path that leads out of it is not followed."""
    output = config.get("output")
    name = output.get(key, default) if isinstance(output, Mapping) else default
    if not isinstance(name, str) or not name or Path(name).name != name:
        return default
    return name


def _history(path: Path, steps: int, faults: list[str]) -> tuple[StepRecord, ...]:
    if not path.is_file():
        faults.append(f"{path.name} is missing: what the steps did is not known")
        return ()
    out: list[StepRecord] = []
    with open(path, "rb") as file:
        for number, line in enumerate(file, 1):
            try:
                out.append(read_dataclass(StepRecord, json.loads(line), "step"))
            except (ValueError, RecursionError) as e:
                faults.append(
                    f"{path.name}, line {number}, cannot be read ({e}): the steps before it are "
                    "shown alone"
                )
                return tuple(out)
    if len(out) != steps:
        faults.append(f"{path.name} holds {len(out)} steps, the summary says {steps}")
    return tuple(out)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, (int, float)) else None


def _numbers(value: Any) -> dict[str, float]:
    if not isinstance(value, Mapping):
        return {}
    return {str(k): float(v) for k, v in value.items() if isinstance(v, (int, float))}
