"""``optiprune export RUN --to FORMAT``: a finished run's model as a file that others load."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from .console import output
from .errors import Debug, InputError, reporting
from .finished_run import FinishedRun

if TYPE_CHECKING:
    from torch import nn

    from optiprune.export import Agreement
    from optiprune.masks import MaskSet

__all__ = ["export_command"]


class Format(str, Enum):
    """What can be written."""

    packed = "packed"
    safetensors = "safetensors"
    onnx = "onnx"
    torch_export = "torch-export"
    semi_structured = "semi-structured"


class Precision(str, Enum):
    """Weights as they are stored."""

    float32 = "float32"
    float16 = "float16"
    bfloat16 = "bfloat16"


_NAMES = {
    Format.packed: "packed.safetensors",
    Format.safetensors: "weights.safetensors",
    Format.onnx: "model.onnx",
    Format.torch_export: "model.pt2",
    Format.semi_structured: "semi-structured.safetensors",
}
_PROGRAMS = (Format.onnx, Format.torch_export)


def export_command(
    run: Annotated[Path, typer.Argument(help="Folder of results of `optiprune prune`.")],
    to: Annotated[Format, typer.Option("--to", help="What is written.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="The file; by default one in the folder.", show_default=False),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A safetensors state dict in place of the run's, such as a fine-tuned one; its "
            "zeros must be those of the run's masks.",
            show_default=False,
        ),
    ] = None,
    dtype: Annotated[
        Precision | None,
        typer.Option(help="Convert the weights; by default as they are.", show_default=False),
    ] = None,
    fixed_batch: Annotated[
        bool,
        typer.Option(
            "--fixed-batch", help="onnx, torch-export: only the batch size of the samples."
        ),
    ] = False,
    samples: Annotated[
        int, typer.Option(min=1, help="onnx, torch-export: calibration samples to trace with.")
    ] = 4,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    debug: Debug = False,
) -> None:
    """Write the model of a finished run as one file, checked before it gets its name.

    packed: masks as bits and the kept values alone, for `optiprune.export.load_packed`.
    safetensors: the plain state dict. onnx: run in onnxruntime and compared (extra `onnx`).
    torch-export: a .pt2 program, loaded again and compared. semi-structured: a packed file of 2:4
    weights that a CUDA device can multiply faster. Functions that the run names are found from the
    current folder.
    """
    with reporting(debug):
        target = out or run / _NAMES[to]
        if target.is_dir() or not target.parent.is_dir():
            where = "is a folder" if target.is_dir() else "lies in a folder that does not exist"
            raise InputError(f"{target} {where}; --out takes the path of a file")
        if target.exists() and not force:
            raise InputError(f"{target} exists; give --force, or another path with --out")
        if to not in _PROGRAMS and fixed_batch:
            raise InputError(f"--fixed-batch is for onnx and torch-export, not {to.value}")
        if to is Format.onnx:
            _need_onnx()
        found = FinishedRun.find(run, weights, Path.cwd())
        if found.holds(target):
            raise InputError(f"{target} is one of the run's own files; choose another with --out")
        model, masks = found.load()
        if dtype is not None:
            _convert(model, dtype)
        write = _WRITERS.get(to)
        if write is not None:
            write(model, masks, target)
            agreement = None
        else:
            agreement = _program(to, found, model, masks, target, samples, fixed_batch)
        _show(model, masks, target, agreement)


def _need_onnx() -> None:
    from optiprune.export.onnx_file import require_onnx

    try:
        require_onnx()
    except ImportError as e:
        raise InputError(str(e)) from None


def _convert(model: nn.Module, dtype: Precision) -> None:
    import torch

    model.to(getattr(torch, dtype.value))


def _program(
    to: Format,
    found: FinishedRun,
    model: nn.Module,
    masks: MaskSet,
    target: Path,
    samples: int,
    fixed_batch: bool,
) -> Agreement:
    from optiprune.export import export_onnx, export_program

    args, kwargs = found.example(model, samples)
    # a model in half precision is traced in it, and rounds
    half = any(p.element_size() < 4 for p in model.parameters() if p.is_floating_point())
    writer = export_onnx if to is Format.onnx else export_program
    options: dict[str, Any] = {"tolerance": 1e-2} if half else {}
    return writer(model, masks, target, args, kwargs, dynamic_batch=not fixed_batch, **options)


def _packed(model: nn.Module, masks: MaskSet, target: Path) -> None:
    from optiprune.export import save_packed

    save_packed(model, masks, target)


def _state_dict(model: nn.Module, masks: MaskSet, target: Path) -> None:
    from optiprune.export import save_state_dict

    save_state_dict(model, masks, target)


def _semi_structured(model: nn.Module, masks: MaskSet, target: Path) -> None:
    from optiprune.export import save_semi_structured

    save_semi_structured(model, masks, target)


_WRITERS: dict[Format, Callable[[Any, Any, Path], None]] = {
    Format.packed: _packed,
    Format.safetensors: _state_dict,
    Format.semi_structured: _semi_structured,
}


def _show(model: nn.Module, masks: MaskSet, target: Path, agreement: Agreement | None) -> None:
    from optiprune.export.checks import distinct_bytes

    console = output()
    size, dense = target.stat().st_size, distinct_bytes(model)
    console.print(
        f"{masks.count()} of {masks.total()} masked weights kept (density {masks.density():.4f})"
    )
    console.print(f"{size} bytes; the tensors of the dense model are {dense} ({size / dense:.1%})")
    if agreement is not None:
        batches = ", ".join(map(str, agreement.batches))
        console.print(
            f"against the model: relative error {agreement.error:.1e} on batches of {batches}"
        )
    console.print(f"written: {escape(str(target))}", soft_wrap=True)
