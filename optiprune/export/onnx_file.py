"""An ONNX file, run in onnxruntime and compared before it gets its name."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from optiprune.curvature.runner import untouched
from optiprune.durable import replacing

from .agreement import Agreement, Example, compare
from .checks import check_masked, distinct_bytes
from .errors import ExportError
from .torch_program import traced

__all__ = ["export_onnx", "require_onnx"]

# a protobuf message ends at 2 GiB; the graph needs some of it
_LIMIT = 2**31 - 2**25


def require_onnx() -> None:
    """Raises ImportError if a package that the export needs is missing."""
    for name in ("onnx", "onnxscript", "onnxruntime"):
        try:
            import_module(name)
        except ImportError as e:
            raise ImportError(
                f"the ONNX export needs {name!r}, which cannot be imported ({e}); install it "
                "with: pip install 'optiprune[onnx]'"
            ) from e


def export_onnx(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    path: str | Path,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    *,
    dynamic_batch: bool = True,
    opset: int | None = None,
    tolerance: float = 1e-4,
) -> Agreement:
    """Write a model in evaluation mode as one ONNX file, weights inside.

    The file is run in onnxruntime, on batches of other sizes too, and its outputs are compared with
    the model's before it takes its name. Zeros are stored as zeros: the file is as large as the
    dense one, and onnxruntime multiplies by them.

    Parameters
    ----------
    args, kwargs : example inputs, on the CPU as the model is; either may be left out
    dynamic_batch : the first dimension stays free; False fixes it to that of the examples
    opset : ONNX version of the operators; by default that of torch
    tolerance : largest difference of an output, over its largest magnitude

    Raises
    ------
    ImportError
        The extra ``onnx`` is not installed.
    MaskError, ExportError
        As `save_packed`; a model on another device than the CPU or of 2 GiB and more; one that
        cannot be traced or converted; or the file computes something else. Nothing is written.
    """
    require_onnx()
    check_masked(model, masks)
    size = distinct_bytes(model)
    if size > _LIMIT:
        raise ExportError(
            f"the model has {size} bytes, and one ONNX file holds less than 2 GiB; export it in "
            "half precision, or with save_packed"
        )
    away = {str(p.device) for p in model.parameters()} - {"cpu"}
    if away:
        raise ExportError(f"the model is on {', '.join(sorted(away))}; model.cpu() first")
    example = Example(args, dict(kwargs or {}))
    with untouched(model), replacing(path, suffix=".onnx") as part:
        program, tried = traced(model, example, dynamic_batch)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                torch.onnx.export(
                    program,
                    (),
                    str(part),
                    dynamo=True,
                    verbose=False,
                    external_data=False,
                    opset_version=opset,
                )
        except Exception as e:  # of many kinds
            cause: BaseException = e
            while cause.__cause__ is not None:
                cause = cause.__cause__
            raise ExportError(
                f"torch.onnx cannot convert {type(model).__name__}: {type(cause).__name__}: {cause}"
            ) from e
        return compare(model, _runner(part), tried, tolerance, "the ONNX file in onnxruntime")


def _runner(path: Path) -> Any:
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as e:  # onnxruntime's own classes are not public
        raise ExportError(f"onnxruntime does not load the file: {e}") from e
    names = [i.name for i in session.get_inputs()]

    def run(example: Example) -> Sequence[Tensor]:
        leaves = tree_leaves((example.args, example.kwargs))
        given = [t for t in leaves if isinstance(t, Tensor)]
        if len(given) != len(names):
            raise ExportError(
                f"the ONNX file has inputs {', '.join(names)}, the model was given {len(given)} "
                "tensors: one of them is not used"
            )
        try:
            feed = {n: t.detach().numpy() for n, t in zip(names, given, strict=True)}
            return [torch.from_numpy(a) for a in session.run(None, feed)]
        except Exception as e:
            raise ExportError(
                f"onnxruntime does not run the file on a batch of {example.batch}: {e}"
            ) from e

    return run
