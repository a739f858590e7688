"""Try the user's model and loss on the data, before any work is done."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationError, CalibrationSet, PrunableLayer
from optiprune.curvature.capture import RunEndedError, run_with_taps
from optiprune.curvature.data import Batch, tree_leaves, tree_signature
from optiprune.curvature.runner import run_model, untouched

from .objective import GlobalLoss

__all__ = ["require_gradients", "try_model"]


def require_gradients(model: nn.Module) -> None:
    """Raise `CalibrationError` under ``torch.inference_mode``, or if the model was made there."""
    if torch.is_inference_mode_enabled() or any(p.is_inference() for p in model.parameters()):
        raise CalibrationError(
            "gradients are needed and torch.inference_mode() forbids them for good; call this, and "
            "build the model, outside of it (torch.no_grad() does no harm)"
        )


def try_model(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    layers: Sequence[PrunableLayer],
    objective: GlobalLoss | None,
    sets: Sequence[CalibrationSet],
    chunk: int,
    whole: bool,
) -> None:
    """Send all samples through the model, and through its loss and one backward pass if needed.

    One forward pass is little next to a search, and labels that are out of range or a batch of
    another width then give one message before the first step.

    Parameters
    ----------
    weights : parameter name -> dense weights
    layers : that take part
    objective : None for the model's outputs alone
    chunk : samples at once
    whole : False, where nothing runs the whole model after this: the first samples of every shape
        go all the way, others up to the first of the layers. Tokens that no embedding has stop
        there, and what follows has seen their shape.

    Raises
    ------
    CalibrationError
        The model or the loss raised, with what and on which shapes; or as `GlobalLoss.value`.
    """
    tried: set[object] = set()
    for data in sets:
        for batch in data.batches(chunk):
            kind = (tree_signature(batch.inputs), batch.n)
            with _naming(batch):
                if objective is not None:
                    objective.value(weights, CalibrationSet([batch]))
                    continue
                with torch.no_grad(), untouched(model):
                    if kind in tried and not whole:
                        run_with_taps(model, layers, weights, batch.inputs, _end)
                    else:
                        run_model(model, weights, batch.inputs)
                        tried.add(kind)
    if objective is not None:
        batch = next(iter(sets[0].batches(chunk)))
        with _naming(batch):
            objective.linearise(weights, CalibrationSet([batch]), np.random.SeedSequence(0))


def _end(*_: object) -> None:
    raise RunEndedError


@contextmanager
def _naming(batch: Batch) -> Iterator[None]:
    try:
        yield
    except CalibrationError:
        raise
    except Exception as e:
        shapes = f"inputs of {_shapes(batch.inputs)}"
        if batch.targets is not None:
            shapes += f" and targets of {_shapes(batch.targets)}"
        raise CalibrationError(
            f"the model or its loss raised {type(e).__name__} on {shapes}: {e}"
        ) from e


def _shapes(tree: object) -> str:
    return ", ".join(f"{tuple(t.shape)} {str(t.dtype)[6:]}" for t in tree_leaves(tree))
