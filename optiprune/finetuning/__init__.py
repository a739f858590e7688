"""Train a sparse model on without losing its sparsity.

`MaskSet.keep` does it for a loop of plain torch. Here are the same for the Trainer of Transformers
and for Lightning, low-rank adapters that merge into a sparse model as they are, and a merge of
adapters that the ``peft`` package trained.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import FineTuningError
from .lora import SparseLoRA, add_lora
from .peft_merge import PeftMerge, merge_peft

# their modules load the libraries whose classes they derive from
_LAZY = {"KeepMasksInTrainer": ".trainer", "KeepMasksInLightning": ".lightning_callback"}

__all__ = [
    "FineTuningError",
    "KeepMasksInLightning",
    "KeepMasksInTrainer",
    "PeftMerge",
    "SparseLoRA",
    "add_lora",
    "merge_peft",
]

if TYPE_CHECKING:
    from .lightning_callback import KeepMasksInLightning
    from .trainer import KeepMasksInTrainer


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LAZY[name], __name__), name)
