"""Masks kept through Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from optiprune.masks import KeepMasked

from .errors import FineTuningError, missing_extra
from .hooking import hook

try:
    from lightning.pytorch import Callback
except ImportError as e:
    raise missing_extra("KeepMasksInLightning", "lightning", e) from e

__all__ = ["KeepMasksInLightning"]


class KeepMasksInLightning(Callback):
    """Keeps the pruned weights of a masked model at exactly zero while Lightning trains it.

    `keep_masked` with the module's optimizers that train masked parameters (the others are left
    alone), from the first step, also of a fit that goes on from a checkpoint, to the last::

        masks.apply(module.network)
        Trainer(callbacks=[KeepMasksInLightning(masks, submodule="network")]).fit(module, loader)

    Parameters
    ----------
    masks : `MaskSet`, or parameter name -> bool mask, True = keep
    submodule : where in the LightningModule the model is that the masks' names belong to, such as
        "network"; the module itself by default

    Raises
    ------
    MaskError
        When training begins: the masks do not fit the model or are not on it, or no masked
        parameter is trained. Sharded parameters (FSDP, DeepSpeed stage 3) do not fit.
    FineTuningError
        When training begins: no such submodule.
    """

    def __init__(self, masks: Mapping[str, Tensor], *, submodule: str = "") -> None:
        super().__init__()
        self._masks = masks
        self._submodule = submodule
        self._keep: KeepMasked | None = None

    def on_train_start(self, trainer: Any, pl_module: nn.Module) -> None:
        # by now weights and optimizers are those of the checkpoint, if there is one
        self._release()
        try:
            model = pl_module.get_submodule(self._submodule)
        except AttributeError:
            names = ", ".join(n for n, _ in pl_module.named_children()) or "none"
            raise FineTuningError(
                f"{type(pl_module).__name__} has no submodule {self._submodule!r}; it has: {names}"
            ) from None
        self._keep = hook(model, self._masks, trainer.optimizers, "Lightning Trainer")

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        # a step that does not go through torch's optimizer calls none of its hooks
        if self._keep is not None:
            self._keep.enforce()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._release()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._release()

    def _release(self) -> None:
        if self._keep is not None:
            self._keep.remove()
            self._keep = None
