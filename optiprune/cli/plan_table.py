"""A plan on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from .console import output

if TYPE_CHECKING:
    from optiprune.planning import RunPlan

__all__ = ["memory_table", "show_plan"]


def memory_table(memory: Mapping[str, int], beside: Mapping[str, int]) -> Table:
    """Bytes by what they are for, their sum, and what there is."""
    table = Table("memory", "GiB", title="At the peak, more than now", title_justify="left")
    for what, amount in [*memory.items(), ("together", sum(memory.values())), *beside.items()]:
        table.add_row(what, f"{amount / 2**30:.2f}")
    return table


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
    memory = memory_table(plan.memory, {"in use now": plan.now, "available": plan.available})
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
