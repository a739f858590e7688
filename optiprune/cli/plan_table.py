"""A plan on the terminal."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from .console import output

if TYPE_CHECKING:
    from optiprune.planning import RunPlan

__all__ = ["show_plan"]


def show_plan(plan: RunPlan) -> None:
    """Layers and problems, memory and time by what they are for."""
    layers = Table(title="Layers", title_justify="left")
    for name in ("layer", "weights", "stay", "problems", "of kind", "variables", "Gram, MiB", "s"):
        layers.add_column(name, justify="left" if name in ("layer", "of kind") else "right")
    for x in plan.layers:
        layers.add_row(
            escape(x.name),
            f"{x.total:,}",
            "by allocation" if x.kept is None else f"{x.kept:,}",
            f"{x.problems:,}",
            escape(x.kind),
            f"{x.size:,}",
            f"{x.gram / 2**20:.1f}",
            f"{x.seconds:.1f}",
        )
    memory = Table("memory", "GiB", title="At the peak, more than now", title_justify="left")
    for what, amount in plan.memory.items():
        memory.add_row(what, f"{amount / 2**30:.2f}")
    memory.add_row("together", f"{plan.needed / 2**30:.2f}")
    memory.add_row("in use now", f"{plan.now / 2**30:.2f}")
    memory.add_row("available", f"{plan.available / 2**30:.2f}")
    seconds = Table("part", "seconds", title="Time, estimated", title_justify="left")
    for what, each in plan.seconds.items():
        seconds.add_row(what, f"{each:.1f}")
    seconds.add_row("together", f"{plan.total_seconds:.1f}")
    console = output()
    for table in (layers, memory, seconds):
        console.print(table)
    console.print(
        f"objective {plan.objective}, solver {plan.solver}, {plan.samples} samples to fit and "
        f"{plan.holdout_samples} to judge by; tried in {plan.probe_seconds:.1f} s"
    )
