"""``optiprune bench``: compare solvers at equal CPU time, and write the instances as files; compare
pruning methods on real models (`bench_quality`)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .bench_instances import kept_instances, request
from .bench_quality import quality_bench
from .console import output
from .errors import Debug, InputError, reporting
from .importable import importable

if TYPE_CHECKING:
    from optiprune.bench.report import Report

__all__ = ["bench_app"]

bench_app = typer.Typer(
    help="Compare solvers at equal CPU time, and pruning methods on real models.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Suite = Annotated[
    str, typer.Option(help="pruning, generators, palubeckis, maxcut, or a folder of problems.")
]
Sizes = Annotated[
    str | None, typer.Option(help="Numbers of variables, such as 64,128.", show_default=False)
]
Count = Annotated[int | None, typer.Option(help="Instances a family and size.", show_default=False)]
Match = Annotated[str, typer.Option(help="Shell pattern that instances' names must match.")]
TargetGap = Annotated[
    float, typer.Option(help="Relative gap at which the target is reached; 0: the best known.")
]
Plots = Annotated[bool, typer.Option(help="Draw figures, as PNG and SVG (needs matplotlib).")]

bench_app.command("quality")(quality_bench)


@bench_app.command("solvers")
def solvers_bench(
    suite: Suite = "pruning",
    solvers: Annotated[
        str,
        typer.Option(
            help="Solvers, aliases, groups (native, peers, dwave-tuned, openjij-tuned, "
            "bifurcation-tuned), module:Class; options after a colon: "
            "annealing:sweeps=50,restarts=0,tabu."
        ),
    ] = "native",
    budget: Annotated[str, typer.Option(help="CPU seconds of a solve, or a list: 0.1,1.")] = "1",
    seeds: Annotated[int, typer.Option(help="Runs of each pair, with the seeds 0, 1, ...")] = 5,
    out: Annotated[Path, typer.Option(help="Results folder; a run in it goes on.")] = Path(
        "bench-out"
    ),
    sizes: Sizes = None,
    count: Count = None,
    match: Match = "*",
    target_gap: TargetGap = 0.0,
    plots: Plots = True,
    fill: Annotated[
        bool, typer.Option(help="Start a solver that ends early again until its budget is used.")
    ] = True,
    to_target: Annotated[
        bool, typer.Option(help="End a solve at the best known energy, where one is known.")
    ] = False,
    isolate: Annotated[bool, typer.Option(help="Solve in a process of its own.")] = True,
    retry_errors: Annotated[
        bool, typer.Option(help="Repeat solves that failed, or were skipped, before.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Run solvers on a suite: equal CPU time, several seeds, every energy recomputed.

    A run that was ended, even by a kill, goes on with the same command.
    """
    # a solver of one's own may lie in the folder that one works in
    with reporting(debug), importable(Path.cwd()):
        from optiprune.bench.protocol import Protocol, parse_solvers, run_bench, usable_solvers
        from optiprune.bench.report import known_of, make_report, write_report

        if target_gap < 0:
            raise InputError(f"--target-gap must be >= 0, got {target_gap}")
        note = _note()
        protocol = Protocol(_numbers("--budget", budget, float), seeds, fill, to_target)
        selection = _selection(sizes, count, match)
        # before the instances, which may take minutes
        chosen = usable_solvers(parse_solvers(solvers), note)
        if out.exists() and not out.is_dir():
            raise InputError(f"--out: {out} is a file")
        instances = kept_instances(suite, selection, out, note)
        console = output()
        solves = len(instances) * len(chosen) * seeds * len(protocol.budgets)
        console.print(f"{len(instances)} instances, {len(chosen)} solvers, {solves} solves")
        with _Progress(solves) as tell:
            records = run_bench(
                instances,
                chosen,
                protocol,
                out,
                isolate=isolate,
                retry_errors=retry_errors,
                tell=tell,
                note=note,
            )
        _refuse_nothing(records, {s.key for s in chosen})
        report = make_report(records, known_of(out, instances), target_gap=target_gap)
        _show(report)
        written = write_report(report, out, plots=plots, note=note)
        console.print(f"written: {', '.join(str(p) for p in written)}", soft_wrap=True)


@bench_app.command("export")
def export_bench(
    out: Annotated[Path, typer.Option(help="Folder of the files; made if it is missing.")],
    suite: Suite = "pruning",
    formats: Annotated[
        str, typer.Option("--format", help="npz, bqp, rudy, lp, mps, json; several by commas.")
    ] = "npz",
    best_known: Annotated[
        Path | None,
        typer.Option(help="Results folder, or its best-known.json.", show_default=False),
    ] = None,
    sizes: Sizes = None,
    count: Count = None,
    match: Match = "*",
    debug: Debug = False,
) -> None:
    """Write the instances of a suite with a manifest: a set that others can use."""
    with reporting(debug):
        from optiprune.bench.instances import check_formats, export_suite
        from optiprune.bench.instances import suite as make_suite
        from optiprune.bench.records import FILE, read_best_known, with_best_known

        _refuse_full(out)
        names = [f.strip() for f in formats.split(",") if f.strip()]
        check_formats(names)
        selection = _selection(sizes, count, match)
        known = {}
        if best_known is not None:
            path = best_known / FILE if best_known.is_dir() else best_known
            known = read_best_known(path)
        note = _note()
        instances = with_best_known(make_suite(suite, selection, note), known)
        path = export_suite(instances, out, names, request=request(suite, selection), note=note)
        with_best = sum(i.best is not None for i in instances)
        output().print(
            f"{len(instances)} instances ({with_best} with a best known answer): {path}",
            soft_wrap=True,
        )


@bench_app.command("report")
def report_bench(
    folder: Annotated[Path, typer.Argument(help="Results folder of `bench solvers`.")],
    target_gap: TargetGap = 0.0,
    plots: Plots = True,
    debug: Debug = False,
) -> None:
    """Print the tables of a results folder and write its summaries and figures anew."""
    with reporting(debug):
        from optiprune.bench.records import read_journal
        from optiprune.bench.report import known_of, make_report, write_report

        if target_gap < 0:
            raise InputError(f"--target-gap must be >= 0, got {target_gap}")
        records = read_journal(folder)
        _refuse_nothing(records)
        report = make_report(records, known_of(folder), target_gap=target_gap)
        _show(report)
        written = write_report(report, folder, plots=plots, note=_note())
        output().print(f"written: {', '.join(str(p) for p in written)}", soft_wrap=True)


def _refuse_full(out: Path) -> None:
    """An export is a folder of its own; a dot in front marks what a kill left of a file."""
    if out.exists() and not out.is_dir():
        raise InputError(f"--out: {out} is a file")
    if out.exists() and any(p.name[0] != "." for p in out.iterdir()):
        raise InputError(
            f"--out: {out} is not empty; choose another folder, or remove this one if it is what "
            "an export that was ended has left"
        )


def _refuse_nothing(records: list[dict[str, Any]], solver_keys: set[str] | None = None) -> None:
    """A run without a single measurement is a mistake, and no table says so."""
    solves = [
        r
        for r in records
        if r["type"] == "solve" and (solver_keys is None or r["solver_key"] in solver_keys)
    ]
    if all(r["status"] == "skipped" for r in solves):
        why = "; ".join(sorted({str(r.get("message")) for r in solves})) or "there is no solve"
        raise InputError(f"nothing was measured: {why}")


def _selection(sizes: str | None, count: int | None, match: str) -> Any:
    from optiprune.bench.instances import Selection

    numbers = None if sizes is None else _numbers("--sizes", sizes, int)
    return Selection(numbers, count, match)


def _numbers(option: str, text: str, kind: Any) -> tuple[Any, ...]:
    try:
        numbers = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = ()
    if not numbers:
        raise InputError(f"{option} takes numbers, separated by commas; got {text!r}")
    return numbers


def _note() -> Callable[[str], None]:
    return lambda text: typer.echo(text, err=True)


def _show(report: Report) -> None:
    from optiprune.bench.report import summary_tables

    console = output()
    for table in summary_tables(report):
        console.print(table)
    for fault in report.faults:
        console.print(f"WRONG: {fault}", soft_wrap=True, markup=False)


class _Progress:
    """A bar on a terminal, on stderr; nothing elsewhere."""

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=not Console(stderr=True).is_terminal,
        )
        self._task = self._bar.add_task("solving", total=total)

    def __enter__(self) -> Callable[[Any], None]:
        self._bar.__enter__()
        return self._tell

    def __exit__(self, *error: Any) -> None:
        self._bar.__exit__(*error)

    def _tell(self, p: Any) -> None:
        self._bar.update(
            self._task,
            completed=p.done,
            total=p.total,
            description=f"{p.task.solver.label} on {p.task.instance.name}",
        )
