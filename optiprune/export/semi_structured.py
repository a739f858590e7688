"""2:4 models as a file: packed on any machine, semi-structured where a GPU for it is.

The packed file is as small as NVIDIA's compressed format: half of the values, and a bit a weight
(as 2 bits for each of 2 in 4). Torch's own semi-structured tensors depend on device and back end,
and torch stores them as pickles only; so they are made on loading.
"""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from optiprune.masks import MaskSet
from optiprune.semi_structured import SemiStructuredError, ineligible_layers, to_semi_structured

from .packed import save_packed
from .packed_reader import load_packed

__all__ = ["load_semi_structured", "save_semi_structured"]


def save_semi_structured(model: nn.Module, masks: MaskSet, path: str | Path) -> None:
    """Check that every masked weight can be semi-structured on a GPU, and write a packed file.

    No GPU is needed: all that does not depend on one is looked at (2:4 masks, Linear, float16 or
    bfloat16, shapes that are multiples of 32 x 64).

    Raises
    ------
    SemiStructuredError
        Naming each masked parameter that cannot be, with its reason. Nothing is written.
    MaskError, ExportError
        As `save_packed`.
    """
    refused = ineligible_layers(model, masks, any_device=True)
    if refused:
        lines = "; ".join(f"'{r.parameter}': {r.reason}" for r in refused)
        raise SemiStructuredError(
            f"{len(refused)} of {len(masks)} parameters cannot be semi-structured: {lines}"
        )
    save_packed(model, masks, path, metadata={"layout": "2:4"})


def load_semi_structured(
    path: str | Path, model: nn.Module, device: torch.device | str = "cuda"
) -> list[str]:
    """Load a packed 2:4 file into a model on a GPU; the names of the weights converted.

    The model is moved to ``device``, loaded, and its masked weights become semi-structured: it is
    for inference then.

    Raises
    ------
    FileNotFoundError, PackedFileError
        As `load_packed`.
    SemiStructuredError
        As `to_semi_structured`: a device that is not CUDA of capability 8.0 or later, among others.
        The model holds the file's weights then, dense.
    """
    if torch.device(device).type != "cuda" or not torch.cuda.is_available():
        raise SemiStructuredError(
            f"device '{device}' cannot be used: a CUDA device of capability 8.0 or later is needed "
            f"(CUDA is {'' if torch.cuda.is_available() else 'not '}available). load_packed loads "
            "the file anywhere, dense"
        )
    masks = load_packed(path, model)
    model.to(device)
    return to_semi_structured(model, masks)
