"""Tables of a finished run on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from .console import output

if TYPE_CHECKING:
    from optiprune.engine.result import RunReport

__all__ = ["layers_table", "show_notes"]


def layers_table(report: RunReport) -> Table:
    """What every layer kept."""
    table = Table("layer", "kept", "of", "density", title="Layers", title_justify="left")
    for layer in report.layers:
        cells = (str(layer.kept), str(layer.total), f"{layer.density:.4f}")
        table.add_row(escape(layer.name), *cells)
    return table


def show_notes(report: RunReport) -> None:
    for note in report.notes:
        output().print(f"note: {escape(note)}", soft_wrap=True)
