"""``optiprune solve FILE``: any problem file, any solver."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.markup import escape
from rich.table import Table

from optiprune import solvers
from optiprune.durable import replacing
from optiprune.problems import Problem
from optiprune.problems.files import FORMATS, read_problem
from optiprune.solvers import IterationLimit, NoImprovement, Solution, Stop, Target, TimeLimit

from .console import output
from .errors import NO_SOLUTION, Debug, InputError, reporting
from .importable import importable
from .json_values import plain
from .options import parse_settings

__all__ = ["solve_command"]

SHOWN_BITS = 64


def solve_command(
    file: Annotated[Path, typer.Argument(help="Problem file; its suffix tells the format.")],
    solver: Annotated[
        str,
        typer.Option(
            "--solver", "-s", help="Solver by name, see `optiprune solvers`, or module:Class."
        ),
    ] = "auto",
    time: Annotated[float | None, typer.Option(help="Time limit in seconds.")] = None,
    iterations: Annotated[
        int | None, typer.Option(help="Limit of proposed moves, or nodes of a tree search.")
    ] = None,
    target: Annotated[float | None, typer.Option(help="Stop at an energy this low.")] = None,
    no_improvement: Annotated[
        int | None, typer.Option(help="Stop after this many moves without a better incumbent.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed, >= 0.")] = 0,
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A hyperparameter; may be repeated."),
    ] = None,
    start: Annotated[
        Path | None, typer.Option(help="Warm start: a solution file written by --out.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Write the solution as JSON.")] = None,
    file_format: Annotated[
        str | None,
        typer.Option("--format", help=f"In place of the suffix: {', '.join(FORMATS)}."),
    ] = None,
    max_n: Annotated[
        int | None, typer.Option(help="Refuse files with more variables.", show_default=False)
    ] = None,
    instance: Annotated[
        int | None,
        typer.Option(help="Which instance of a bqp file with several, from 1.", show_default=False),
    ] = None,
    debug: Debug = False,
) -> None:
    """Solve a problem file. Exit code 0: solved; 1: no solution found; 2: bad input."""
    # a solver of one's own may lie in the folder that one works in
    with reporting(debug), importable(Path.cwd()):
        options = parse_settings(setting or [])
        chosen = solvers.get(solver, **options)
        stop = _stop(time, iterations, target, no_improvement)
        if out is not None:
            _check_out(out)
        size = {} if max_n is None else {"max_n": max_n}
        problem = read_problem(file, format=file_format, instance=instance, **size)
        x0 = None if start is None else _read_start(start, problem.n)
        solution = chosen.solve(problem, x0=x0, seed=seed, stop=stop)
        output().print(_table(file, problem, solution))
        if out is not None:
            record = _record(file, problem, solution, solver, options, seed)
            with replacing(out) as temporary:
                temporary.write_text(json.dumps(record, indent=1) + "\n")
        if not solution.status.has_solution:
            raise typer.Exit(NO_SOLUTION)


def _stop(
    time: float | None,
    iterations: int | None,
    target: float | None,
    no_improvement: int | None,
) -> Stop | None:
    """The criteria given, any of which stops; they validate their own values."""
    criteria: list[Stop] = []
    if time is not None:
        criteria.append(TimeLimit(time))
    if iterations is not None:
        criteria.append(IterationLimit(iterations))
    if target is not None:
        criteria.append(Target(target))
    if no_improvement is not None:
        criteria.append(NoImprovement(no_improvement))
    if len(criteria) < 2:
        return criteria[0] if criteria else None
    return solvers.AnyOf(tuple(criteria))


def _check_out(path: Path) -> None:
    """What can be known about --out before a solve that may take hours."""
    target = path.resolve()
    if not target.parent.is_dir():
        raise InputError(f"--out: there is no folder {target.parent}")
    if target.is_dir():
        raise InputError(f"--out: {target} is a folder; name a file in it")
    if not os.access(target.parent, os.W_OK):
        raise InputError(f"--out: the folder {target.parent} cannot be written to")


def _read_start(path: Path, n: int) -> np.ndarray:
    try:
        saved = json.loads(path.read_text())["x"]
        x = None if saved is None else np.asarray(saved)
    except (ValueError, KeyError, TypeError, RecursionError) as e:
        # ValueError: no text, no JSON, or rows of different lengths
        raise InputError(f"--start {path} is not a solution file written by --out: {e}") from None
    if x is None:
        raise InputError(f"--start {path} holds no solution: the solve that wrote it found none")
    if x.shape != (n,):
        raise InputError(f"--start {path} holds x of shape {x.shape}, the problem has n = {n}")
    return x


def _table(file: Path, problem: Problem, solution: Solution) -> Table:
    stats = solution.stats
    table = Table(show_header=False)
    table.add_column()
    table.add_column(overflow="fold")
    rows = [
        ("file", str(file)),
        ("problem", f"{type(problem).__name__}, n = {problem.n}"),
        ("solver", stats.solver),
        ("status", solution.status.value),
        ("energy", "-" if solution.x is None else f"{solution.energy:.10g}"),
        ("bound", "-" if solution.bound is None else f"{solution.bound:.10g}"),
        ("gap", "-" if solution.gap is None else f"{100 * solution.gap:.4g} %"),
        ("time", f"{stats.wall_s:.3f} s" + _overrun(stats.overrun_s)),
        ("moves", f"{stats.moves} ({100 * stats.acceptance:.1f} % accepted)"),
        ("stopped by", stats.stop_reason),
        ("x", _summary(solution)),
    ]
    if stats.message:
        rows.append(("message", stats.message))
    for name, value in rows:
        table.add_row(name, escape(value))
    return table


def _overrun(seconds: float) -> str:
    return f" (the limit was overrun by {seconds:.3f} s)" if seconds > 0 else ""


def _summary(solution: Solution) -> str:
    x = solution.x
    if x is None:
        return "-"
    ones = f"{int(x.sum())} of {x.size} are 1"
    bits = "".join(map(str, x[:SHOWN_BITS]))
    dots = "..." if x.size > SHOWN_BITS else ""
    weights = ""
    if solution.weights is not None:
        weights = f"; |w| up to {float(np.abs(solution.weights).max(initial=0.0)):.4g}"
    return f"{ones}: {bits}{dots}{weights}"


def _record(
    file: Path,
    problem: Problem,
    solution: Solution,
    solver: str,
    options: dict[str, Any],
    seed: int,
) -> dict[str, Any]:
    return {
        "problem": {"file": str(file), "type": type(problem).__name__, "n": problem.n},
        "solver": {"name": solver, **plain(options)},
        "seed": seed,
        "status": solution.status.value,
        "energy": plain(float(solution.energy)),
        "bound": plain(solution.bound),
        "gap": plain(solution.gap),
        "x": plain(solution.x),
        "weights": plain(solution.weights),
        "stats": plain(solution.stats),
    }
