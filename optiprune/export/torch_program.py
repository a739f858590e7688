"""A program of torch.export (``.pt2``), loaded again and compared before it gets its name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from optiprune.curvature.runner import untouched
from optiprune.durable import replacing

from .agreement import Agreement, Example, compare
from .checks import check_masked
from .errors import ExportError

__all__ = ["export_program", "traced"]


def export_program(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    path: str | Path,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    tolerance: float = 1e-5,
) -> Agreement:
    """Write a model in evaluation mode as a program of torch.export.

    The file is loaded again and run beside the model, on batches of other sizes too, before it
    takes its name. The example inputs are not stored. ``torch.export.load`` falls back on pickle
    for parts of a file: load only files that you know the maker of. (`optiprune` loads none but
    the one that it has just written.)

    Parameters
    ----------
    args, kwargs : example inputs, on the model's device; either may be left out
    dynamic_batch : the first dimension stays free; False fixes it to that of the examples
    tolerance : largest difference of an output, over its largest magnitude

    Raises
    ------
    MaskError, ExportError
        As `save_packed`; the model cannot be traced; or the program computes something else.
        Nothing is written then.
    """
    bound = check_masked(model, masks)
    example = Example(args, dict(kwargs or {}))
    with untouched(model):
        program, tried = traced(model, example, dynamic_batch)
        program.example_inputs = None  # users' data, and a pickle
        with replacing(path, suffix=".pt2") as part:
            torch.export.save(program, part)
            loaded = torch.export.load(part)
            for b in bound:
                kept = [n for n in b.aliases if n in loaded.state_dict]
                stored = None if not kept else loaded.state_dict[kept[0]].detach()
                if stored is None or bool(stored[~b.mask.to(stored.device)].any()):
                    raise ExportError(f"the exported program does not hold {b.name!r} as masked")
            module = loaded.module()

            def run(e: Example) -> Sequence[Tensor]:
                with torch.no_grad():
                    outputs = module(*e.args, **e.kwargs)
                return [t for t in tree_leaves(outputs) if isinstance(t, Tensor)]

            return compare(model, run, tried, tolerance, "the exported program")


def traced(
    model: nn.Module, example: Example, dynamic_batch: bool
) -> tuple[torch.export.ExportedProgram, list[Example]]:
    """The program, and the examples to try it on. Raises `ExportError` if torch cannot trace it."""
    # torch takes a size of 1 for a constant
    shown = example.sized(max(2, example.batch)) if dynamic_batch else example
    shapes = shown.dynamic_shapes() if dynamic_batch else None
    try:
        with torch.no_grad():
            program = torch.export.export(
                model, shown.args, shown.kwargs, dynamic_shapes=shapes, strict=False
            )
    except Exception as e:  # of many kinds, from torch and from the model
        hint = " (dynamic_batch = False fixes the size of the batch)" if dynamic_batch else ""
        raise ExportError(
            f"torch.export cannot trace {type(model).__name__}{hint}: {type(e).__name__}: "
            f"{_first_line(e)}"
        ) from e
    sizes = {example.batch, 1, shown.batch + 1} if dynamic_batch else {example.batch}
    return program, [example.sized(n) for n in sorted(sizes)]


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else "no message"
