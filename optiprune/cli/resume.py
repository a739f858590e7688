"""``optiprune resume DIR``: go on with a run that was stopped, killed, or out of disk space."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from .errors import Debug, reporting
from .outputs import Outputs
from .prune import find_inputs, run_inputs
from .unfinished import Unfinished

__all__ = ["resume_command"]


def resume_command(
    folder: Annotated[Path, typer.Argument(help="Folder of the run's results.")],
    repair: Annotated[
        bool, typer.Option("--repair", help="Do the first damaged step, and those after it, again.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Go on with a run of `optiprune prune` from its last whole step, to the same masks."""
    with reporting(debug):
        unfinished = Unfinished(folder.resolve())
        with unfinished.go_on(repair=repair) as (run, here, journal):
            typer.echo(f"{unfinished.steps} steps are there", err=True)
            inputs = find_inputs(run, here)
            outputs = Outputs(inputs.run, folder.resolve(), force=True)
            code = run_inputs(inputs, outputs, journal, unfinished, force=True, resumed=True)
        if code:
            raise typer.Exit(code)
