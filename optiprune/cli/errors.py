"""One clear message for what the user got wrong; a traceback only with ``--debug``."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer

from optiprune.executors import ExecutorError
from optiprune.solvers import SolverError

__all__ = ["BAD_INPUT", "DEFECT", "INTERRUPTED", "NO_SOLUTION", "Debug", "InputError", "reporting"]

NO_SOLUTION = 1
BAD_INPUT = 2
DEFECT = 3
INTERRUPTED = 130

Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


class InputError(ValueError):
    """Something on the command line, in a file or in the user's code that cannot be used."""


# What the package raises for bad input derives from these; anything else is a defect of ours.
_EXPECTED = (ValueError, SolverError, ExecutorError, OSError)


@contextmanager
def reporting(debug: bool) -> Iterator[None]:
    """Turn exceptions into a message on stderr and an exit code; with ``debug`` let them through.

    Exit code 2 for bad input, 3 for a defect, 130 for Ctrl-C.
    """
    try:
        yield
    except (typer.Exit, typer.Abort):
        raise
    except KeyboardInterrupt:
        typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from None
    except _EXPECTED as e:
        if debug:
            traceback.print_exc()
        typer.echo(f"error: {e}", err=True)
        raise typer.Exit(BAD_INPUT) from None
    except Exception as e:
        if debug:
            traceback.print_exc()
        typer.echo(
            f"error: unexpected {type(e).__name__}: {e}\n"
            "This may be a defect of optiprune; run again with --debug and report the traceback.",
            err=True,
        )
        raise typer.Exit(DEFECT) from None
