"""How far a block turns what it is given: a ranking of blocks from one pass over the data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from optiprune.curvature import CalibrationSet
from optiprune.curvature.runner import run_model, untouched
from optiprune.structure import Block
from optiprune.structure.blocks import given, handed_on

__all__ = ["block_influence"]


@torch.no_grad()
def block_influence(
    model: nn.Module, blocks: Sequence[Block], data: CalibrationSet, chunk: int = 64
) -> npt.NDArray[np.float64]:
    """Mean of 1 - cosine of what goes in and what comes out, over the last dimension, (blocks,).

    Men et al. 2024, ShortGPT, arXiv 2403.03853. Between 0 and 2; a block that only scales has 0.
    """
    sums = np.zeros(len(blocks))
    counts = np.zeros(len(blocks))

    def watched(i: int) -> Callable[..., None]:
        def hook(module: nn.Module, args: Any, kwargs: Any, out: Any) -> None:
            x, y = given(args, kwargs), handed_on(out)
            if x is None or y is None or x.ndim == 0:
                return
            turned = 1.0 - torch.cosine_similarity(x.double(), y.double(), dim=-1)
            sums[i] += float(turned.sum())
            counts[i] += turned.numel()

        return hook

    handles = [
        model.get_submodule(b.name).register_forward_hook(watched(i), with_kwargs=True)
        for i, b in enumerate(blocks)
    ]
    try:
        with untouched(model):
            for batch in data.batches(chunk):
                run_model(model, {}, batch.inputs)
    finally:
        for handle in handles:
            handle.remove()
    return sums / np.maximum(counts, 1.0)
