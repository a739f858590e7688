"""Masks kept through the Trainer of Hugging Face Transformers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from optiprune.masks import KeepMasked

from .errors import missing_extra
from .hooking import hook

try:
    from transformers import TrainerCallback
except ImportError as e:
    raise missing_extra("KeepMasksInTrainer", "transformers", e) from e

__all__ = ["KeepMasksInTrainer"]


class KeepMasksInTrainer(TrainerCallback):
    """Keeps the pruned weights of a masked model at exactly zero while a Trainer trains it.

    `keep_masked` with the optimizer that the Trainer makes, from the first step (also of a run that
    is resumed from a checkpoint) to the last::

        masks.apply(model)
        Trainer(model, args, train_dataset=data, callbacks=[KeepMasksInTrainer(masks)]).train()

    Gradients are masked before they are clipped, accumulated or unscaled, and pruned weights are
    zero after every step, so every checkpoint holds them as zeros.

    Parameters
    ----------
    masks : `MaskSet`, or parameter name -> bool mask, True = keep; names are those of the model

    Raises
    ------
    MaskError
        When training begins: the masks do not fit the model or are not on it, or no masked
        parameter is trained. Sharded parameters (FSDP, DeepSpeed stage 3) do not fit.
    """

    def __init__(self, masks: Mapping[str, Tensor]) -> None:
        self._masks = masks
        self._keep: KeepMasked | None = None

    def on_train_begin(
        self,
        args: Any,
        state: Any,
        control: Any,
        model: Any = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        self._release()  # of a training that ended with an error
        self._keep = hook(model, self._masks, [_inner(optimizer)], "Trainer")

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        # an optimizer that another package wraps may step without calling torch's hooks
        if self._keep is not None:
            self._keep.enforce()

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._release()

    def _release(self) -> None:
        if self._keep is not None:
            self._keep.remove()
            self._keep = None


def _inner(optimizer: Any) -> Optimizer:
    """The optimizer of torch in accelerate's wrapper, which has no hooks of its own."""
    while not hasattr(optimizer, "_optimizer_step_post_hooks") and hasattr(optimizer, "optimizer"):
        optimizer = optimizer.optimizer
    inner: Optimizer = optimizer
    return inner
