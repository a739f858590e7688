"""Where tables go: the terminal at its width, or a pipe at a width that cuts nothing important."""

from __future__ import annotations

import os
import sys

from rich.console import Console

__all__ = ["PIPE_WIDTH", "output"]

PIPE_WIDTH = 120


def output() -> Console:
    """A console on the present ``sys.stdout``; made at each use, so that redirection holds."""
    fixed = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
    return Console(width=fixed, highlight=False)
