"""``optiprune config``: what can be set, a file to start from, and whether a file is right."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from pydantic import BaseModel
from rich.markup import escape
from rich.table import Table

from optiprune.config import explain

from .callables import check_solver
from .console import output
from .errors import Debug, InputError, reporting
from .pretrained_config import PretrainedRunConfig, load_prune_config
from .run_config import RunConfig, load_file
from .template import template

__all__ = ["REQUIRED_EXAMPLES", "config_command"]

REQUIRED_EXAMPLES = {
    "model.factory": '"my_model.py:load"',
    "data.calibration": '"my_model.py:calibration"',
    "pretrained.dir": '"model"',
    "text.file": '"calibration.txt"',
}
TRAIN_EXAMPLES = {
    "model.factory": '"my_model.py:load"',
    "data.train": '"my_model.py:training_data"',
}


def config_command(
    file: Annotated[
        Path | None, typer.Argument(help="Run file (TOML) to validate.", show_default=False)
    ] = None,
    explain_all: Annotated[
        bool, typer.Option("--explain", help="List every option, type, default and meaning.")
    ] = False,
    show_template: Annotated[
        bool, typer.Option("--template", help="Print a complete, commented run file.")
    ] = False,
    training: Annotated[
        bool, typer.Option("--training", help="Of `optiprune train`, not of `optiprune prune`.")
    ] = False,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Of a run over a model directory.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Explain the options, print a template, or validate a run file."""
    with reporting(debug):
        if (file is not None) + explain_all + show_template != 1:
            raise InputError("give one of: a FILE to validate, --explain, --template")
        kind = PretrainedRunConfig if pretrained else RunConfig
        if training:
            _training(file, explain_all)
        elif explain_all:
            _explain(kind)
        elif show_template:
            typer.echo(template(kind, REQUIRED_EXAMPLES), nl=False)
        elif file is not None:
            run = load_prune_config(file, {})
            check_solver(run)
            typer.echo(
                f"{file} is valid: sparsity {run.prune.sparsity:g}, objective "
                f"{run.prune.objective}, solver {run.solver['name']}"
            )


def _training(file: Path | None, explain_all: bool) -> None:
    from .train_config import TrainRunConfig  # loads torch

    if file is not None:
        run = load_file(TrainRunConfig, file)
        typer.echo(
            f"{file} is valid: rule {run.choice.rule} of {run.choice.of}, the "
            f"{run.choice.decide} decides"
        )
    elif explain_all:
        _explain(TrainRunConfig)
    else:
        typer.echo(template(TrainRunConfig, TRAIN_EXAMPLES), nl=False)


def _explain(model: type[BaseModel]) -> None:
    table = Table(title="Options of a run file", title_justify="left", show_lines=False)
    for name in ("option", "type", "default"):
        table.add_column(name, overflow="fold")
    table.add_column("meaning", overflow="fold", ratio=1)
    for row in explain(model):
        table.add_row(*(escape(cell) for cell in row))
    output().print(table)
