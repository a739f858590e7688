"""The plain state dict, zeros and all: what every library loads, as large as the dense one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from safetensors.torch import save_model
from torch import Tensor, nn

from optiprune.durable import replacing

from .checks import check_masked

__all__ = ["save_state_dict"]


def save_state_dict(model: nn.Module, masks: Mapping[str, Tensor], path: str | Path) -> None:
    """Write the state dict as safetensors, tied weights once; read by ``safetensors.load_model``.

    Raises
    ------
    MaskError, ExportError
        As `save_packed`; nothing is written then.
    """
    check_masked(model, masks)
    with replacing(path) as part:
        save_model(model, str(part))
