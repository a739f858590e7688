"""``optiprune demo``: four ways to prune one small network to the same density, side by side."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from optiprune.durable import replacing

from .console import output
from .errors import Debug, InputError, reporting

__all__ = ["demo_command"]


def demo_command(
    out: Annotated[Path, typer.Option(help="Folder of the plot and the numbers.")] = Path(
        "demo-out"
    ),
    sparsity: Annotated[float, typer.Option(help="Share of the weights to prune.")] = 0.9,
    seed: Annotated[int, typer.Option(help="Seed of the training, the split and the search.")] = 0,
    debug: Debug = False,
) -> None:
    """Train a network on scikit-learn's digits, prune it in four ways, print a table and a plot."""
    with reporting(debug):
        if not 0 < sparsity < 1:
            raise InputError(f"--sparsity must lie between 0 and 1, got {sparsity}")
        if seed < 0:
            raise InputError(f"--seed must be >= 0, got {seed}")
        if out.exists() and not out.is_dir():
            raise InputError(f"--out: {out} is a file")
        _require_extras()
        # these load torch, scikit-learn and matplotlib: only the demo pays for them
        from .demo_methods import run_methods
        from .demo_plot import draw
        from .json_values import plain

        console = output()
        console.print("Training a 64-256-128-10 network on scikit-learn's digits ...")
        rows = []
        for row in run_methods(sparsity, seed):
            rows.append(row)
            if len(rows) == 1:
                console.print(f"Pruning it to {1 - sparsity:.0%} density in four ways ...")
        table = Table("", "density", "test accuracy", "test loss", "time")
        for row in rows:
            table.add_row(
                row.name,
                f"{row.density:.1%}",
                f"{row.accuracy:.2%}",
                f"{row.loss:.3f}",
                f"{row.seconds:.2f} s",
            )
        console.print(table)
        out.mkdir(parents=True, exist_ok=True)
        draw(rows, out / "demo.png")
        import json

        numbers = [{k: v for k, v in asdict(r).items() if k != "kept_per_pixel"} for r in rows]
        with replacing(out / "demo.json") as temporary:
            temporary.write_text(json.dumps(plain(numbers), indent=1) + "\n")
        console.print(f"plot: {out / 'demo.png'}   numbers: {out / 'demo.json'}", soft_wrap=True)


def _require_extras() -> None:
    from importlib.util import find_spec

    missing = [
        package
        for module, package in (("sklearn", "scikit-learn"), ("matplotlib", "matplotlib"))
        if find_spec(module) is None
    ]
    if missing:
        raise InputError(
            f"the demo needs {' and '.join(missing)}; install with: pip install 'optiprune[demo]'"
        )
