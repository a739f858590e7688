"""``optiprune groups``: which units of a model can be removed together, and what stays, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from .callables import CallableLoader
from .console import output
from .errors import Debug, InputError, reporting
from .returned import as_module

if TYPE_CHECKING:
    from optiprune.structure import Group, Structure

__all__ = ["groups_command"]


def groups_command(
    factory: Annotated[
        str,
        typer.Argument(
            help="Function that returns the model: file.py:function or package.module:function.",
            show_default=False,
        ),
    ],
    inputs: Annotated[
        str | None,
        typer.Option(
            help="Function that returns example inputs: a tensor, a tuple of arguments or a dict "
            "of keyword arguments, for a batch of two or more.",
            show_default=False,
        ),
    ] = None,
    shape: Annotated[
        str | None,
        typer.Option(
            help="Instead of --inputs: the shape of one tensor of random numbers, such as "
            "2,3,224,224.",
            show_default=False,
        ),
    ] = None,
    held: Annotated[
        bool, typer.Option("--held", help="List what has to stay, and why, as well.")
    ] = False,
    confirm: Annotated[
        bool,
        typer.Option(
            "--confirm/--no-confirm",
            help="Remove a unit of every group from a copy, to see that the program allows it.",
        ),
    ] = True,
    debug: Debug = False,
) -> None:
    """List the groups of a model: units that leave it together, and the tensors they are in."""
    with reporting(debug):
        example = _example(inputs, shape)
        loader = CallableLoader(Path.cwd())
        build = loader.load("the model", factory, 0)
        given = loader.load("--inputs", inputs, 0)() if inputs is not None else None
        from optiprune.curvature.inputs import arguments_of
        from optiprune.structure import confirmed, find_structure

        model = as_module("the model", factory, build())
        args, kwargs = arguments_of(given if given is not None else example)
        structure = find_structure(model, args, kwargs)
        if confirm:
            structure = confirmed(model, structure, args, kwargs)
        _show(structure, held)


def _example(inputs: str | None, shape: str | None) -> Any:
    if (inputs is None) == (shape is None):
        raise InputError("give either --inputs or --shape, so that the model can be run once")
    if shape is None:
        return None
    try:
        sizes = [int(n) for n in shape.split(",")]
    except ValueError:
        raise InputError(
            f"--shape {shape!r} must be integers by commas, as in 2,3,224,224"
        ) from None
    if not sizes or min(sizes) < 1 or sizes[0] < 2:
        raise InputError(f"--shape {shape!r} needs sizes of at least 1, and a batch of two or more")
    import torch

    return torch.randn(sizes, generator=torch.Generator().manual_seed(0))


def _show(structure: Structure, held: bool) -> None:
    from optiprune.structure.units import KERNEL

    console = output()
    table = Table(title="Groups", title_justify="left")
    table.add_column("group", overflow="fold")
    table.add_column("kind")
    table.add_column("units", justify="right")
    table.add_column("made by", overflow="fold", ratio=1)
    table.add_column("read by", overflow="fold", ratio=1)
    grouped: dict[int, list[str]] = {}
    for block in structure.columns:
        for number in sorted({g for row in block.units for g, _ in row}):
            grouped.setdefault(number, []).append(f"{block.weight}[1] of its groups")
    for number, group in enumerate(structure.groups):
        table.add_row(
            escape(group.name),
            group.kind,
            str(group.size),
            escape(_tensors(group, reads=False)),
            escape(_tensors(group, reads=True, more=grouped.get(number, []))),
        )
    console.print(table)
    units = sum(g.size for g in structure.groups)
    console.print(f"{len(structure.groups)} groups, {units} units")
    for balance in dict.fromkeys(str(b.because) for b in structure.balances):
        console.print(f"as many units stay in every part: {escape(balance)}")
    if held:
        kept = Table(title="Held", title_justify="left")
        kept.add_column("tensor", overflow="fold", ratio=1)
        kept.add_column("dim", justify="right")
        kept.add_column("indices", justify="right")
        kept.add_column("because", overflow="fold", ratio=2)
        for h in structure.held:
            if h.barrier.reason == KERNEL:
                continue
            kept.add_row(escape(h.tensor), str(h.dim), str(h.count), escape(str(h.barrier)))
        console.print(kept)


def _tensors(group: Group, *, reads: bool, more: Sequence[str] = ()) -> str:
    """Each tensor with the indices a unit has in it, where these are not one."""
    out = list(more)
    for m in group.members:
        if m.reads is reads:
            widths = sorted({len(i) for i in m.indices})
            each = "" if widths == [1] else f" x{'-'.join(map(str, widths))}"
            out.append(f"{m.tensor}[{m.dim}]{each}")
    shown = out[:6]
    return "\n".join(shown) + (f"\nand {len(out) - 6} more" if len(out) > 6 else "")
