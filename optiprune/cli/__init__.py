"""The command line: ``optiprune prune``, ``shrink``, ``train``, ``solve``, ``bench`` and others.

One file a command. Exit codes: 0 done, 1 no solution found, 2 bad input, 3 a defect in optiprune,
130 interrupted. Nothing here imports torch until a command needs it, so ``optiprune solve`` starts
quickly.
"""

from __future__ import annotations

import os
from typing import Annotated

import typer

from optiprune import __version__

from .bench import bench_app
from .config import config_command
from .demo import demo_command
from .doctor import doctor_command
from .export import export_command
from .groups import groups_command
from .prune import prune_command
from .report import report_command
from .resume import resume_command
from .shrink import shrink_command
from .solve import solve_command
from .solvers import solvers_command
from .train import train_command

__all__ = ["app", "main"]

app = typer.Typer(
    name="optiprune",
    help="Decide which weights of a trained torch model to keep, by combinatorial optimization.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"optiprune {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
) -> None:
    """Decide which weights of a trained torch model to keep, by combinatorial optimization."""


app.command("prune")(prune_command)
app.command("resume")(resume_command)
app.command("report")(report_command)
app.command("groups")(groups_command)
app.command("shrink")(shrink_command)
app.command("train")(train_command)
app.command("export")(export_command)
app.command("solve")(solve_command)
app.command("solvers")(solvers_command)
app.add_typer(bench_app, name="bench")
app.command("demo")(demo_command)
app.command("config")(config_command)
app.command("doctor")(doctor_command)


def main() -> None:
    """Entry point of the ``optiprune`` script."""
    # OpenMP reads it once, as torch loads, which is later. Its threads spin while they wait by
    # default, and where other processes share the cores that was measured to be 4 to 13 times
    # slower than letting them sleep.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    app()
