"""``optiprune bench quality``: pruning methods side by side on real models."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from .checkout import from_checkout
from .console import output
from .errors import Debug, InputError, reporting
from .importable import importable

__all__ = ["quality_bench"]


def quality_bench(
    models: Annotated[
        str | None,
        typer.Option(
            help="Names by commas, or all, or module:function of your own.  [default: the four "
            "Fashion-MNIST models]",
            show_default=False,
        ),
    ] = None,
    densities: Annotated[
        str | None,
        typer.Option(
            help="Shares that stay, and patterns.  [default: 0.5,0.3,0.2,0.1,0.05,2:4,4:8]",
            show_default=False,
        ),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Names or patterns by commas; all, ours, baselines, mask, weights.  "
            "[default: all]",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds by commas.  [default: 0,1,2]", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Results folder; a run in it goes on.")] = Path(
        "quality-out"
    ),
    config: Annotated[
        Path | None,
        typer.Option(help="TOML file with a table [quality].", show_default=False),
    ] = None,
    samples: Annotated[
        int | None,
        typer.Option(help="Calibration samples.  [default: the model's]", show_default=False),
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            help="Loss of methods that look at one: auto, cross_entropy, mse, kl (no labels), "
            "output.  [default: auto]",
            show_default=False,
        ),
    ] = None,
    timeout: Annotated[
        float | None, typer.Option(help="Seconds of a cell.  [default: 3600]", show_default=False)
    ] = None,
    threads: Annotated[
        int | None, typer.Option(help="Threads of a cell.  [default: 1]", show_default=False)
    ] = None,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Repeat cells that failed before.")
    ] = False,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Write tables and figures of --out anew.")
    ] = False,
    list_only: Annotated[
        bool, typer.Option("--list", help="Show models and methods, and how many cells there are.")
    ] = False,
    plots: Annotated[bool, typer.Option(help="Draw figures (needs matplotlib).")] = True,
    debug: Debug = False,
) -> None:
    """Prune models by many methods, each in a process of its own, and compare what is left.

    Needs the repository of optiprune, where baselines and models are. A run that was ended, even by
    a kill, goes on with the same command.
    """
    with reporting(debug), importable(Path.cwd()):
        report = from_checkout("benchmarks.quality.report")
        if out.exists() and not out.is_dir():
            raise InputError(f"--out: {out} is a file")
        if report_only:
            _write(
                report, from_checkout("benchmarks.quality.records").read_records(out), out, plots
            )
            return
        settings = from_checkout("benchmarks.quality.settings")
        given = {
            "models": _split(models),
            "densities": _split(densities),
            "methods": _split(methods),
            "seeds": _seeds(seeds),
            "samples": samples,
            "loss": loss,
            "timeout": timeout,
            "threads": threads,
        }
        wanted = settings.read_settings(config, given)
        cells, chosen, used = settings.plan(wanted)
        if list_only:
            _list(chosen, used, len(cells))
            return
        if not cells:
            raise InputError("no method that was chosen can do any density that was asked for")
        runner = from_checkout("benchmarks.quality.runner")
        output().print(f"{len(cells)} cells; what {out} holds already is not measured again")
        records = runner.run_grid(
            cells,
            out,
            timeout=wanted.timeout,
            threads=wanted.threads,
            retry_failed=retry_failed,
            tell=_tell,
        )
        _write(report, records, out, plots)


def _write(report: Any, records: list[dict[str, Any]], out: Path, plots: bool) -> None:
    written = report.write_report(records, out, plots=plots, note=_note)
    output().print(f"written: {', '.join(str(p) for p in written)}", soft_wrap=True)


def _list(models: list[Any], methods: list[Any], cells: int) -> None:
    console = output()
    for model in models:
        console.print(f"{model.name}: {model.about}", markup=False, soft_wrap=True)
    for method in methods:
        origin = method.reference or method.source
        console.print(f"{method.name} ({method.kind}): {origin}", markup=False, soft_wrap=True)
    console.print(f"{cells} cells")


def _tell(progress: Any) -> None:
    """A line a cell: they take seconds to hours, and a log is read afterwards."""
    if progress.record is None:
        return
    record = progress.record
    if record["status"] == "ok":
        value = record["metrics"][record["metric"]]
        told = f"{record['metric']} {value:.4g}, {record['wall_s']:.1f} s"
    else:
        told = f"{record['status']}: {record.get('message', '')}"[:200]
    line = f"{progress.done}/{progress.total} {progress.cell}: {told}"
    output().print(line, markup=False, soft_wrap=True)


def _note(text: str) -> None:
    typer.echo(text, err=True)


def _split(text: str | None) -> list[str] | None:
    return None if text is None else [p.strip() for p in text.split(",") if p.strip()]


def _seeds(text: str | None) -> list[int] | None:
    try:
        return None if text is None else [int(p) for p in _split(text) or ()]
    except ValueError:
        raise InputError(f"--seeds takes integers, separated by commas; got {text!r}") from None
