"""Keep masked weights zero in fine-tuning, whatever the optimizer does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from .binding import Bound, bind
from .errors import MaskError

__all__ = ["KeepMasked", "keep_masked"]


class KeepMasked:
    """Handle of the hooks that `keep_masked` put on; ``remove()`` takes them off.

    As a context manager it removes them at the end of the block.
    """

    def __init__(self, bound: Sequence[Bound], optimizers: Sequence[Optimizer]) -> None:
        self._pruned = [_Pruned(b) for b in bound]
        self._handles = [
            # Masked before it is accumulated: neither a gradient norm that is clipped, nor an
            # optimizer's momentum, ever sees it.
            twin.register_hook(p.mask_gradient)
            for p, b in zip(self._pruned, bound, strict=True)
            for twin in b.twins
            if twin.requires_grad
        ]
        # Weight decay, momentum of before and loaded optimizer states move weights without a
        # gradient: hence the second hook.
        self._handles += [o.register_step_post_hook(self._after_step) for o in optimizers]

    @property
    def active(self) -> bool:
        """Whether the hooks are on."""
        return bool(self._handles)

    def remove(self) -> None:
        """Take the hooks off; the weights are as they are. A second call does nothing."""
        for handle in self._handles:
            handle.remove()
        self._handles = []

    def enforce(self) -> None:
        """Set the pruned weights to zero now (after a step that no hooked optimizer made)."""
        with torch.no_grad():
            for p in self._pruned:
                p.parameter.masked_fill_(p.on(p.parameter.device), 0.0)

    def _after_step(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        self.enforce()

    def __enter__(self) -> KeepMasked:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def __repr__(self) -> str:
        return f"KeepMasked({len(self._pruned)} parameters, {'on' if self.active else 'off'})"


class _Pruned:
    """One parameter and where it is pruned, on whatever device the parameter has moved to."""

    __slots__ = ("_where", "parameter")

    def __init__(self, b: Bound) -> None:
        self.parameter = b.parameter
        self._where = ~b.mask.to(b.parameter.device)

    def on(self, device: torch.device) -> Tensor:
        if self._where.device != device:
            self._where = self._where.to(device)
        return self._where

    def mask_gradient(self, gradient: Tensor) -> Tensor:
        return gradient.masked_fill(self.on(gradient.device), 0.0)


def keep_masked(
    model: nn.Module, masks: Mapping[str, Tensor], *optimizers: Optimizer
) -> KeepMasked:
    """Keep the pruned weights of a masked model at exactly zero while it is fine-tuned.

    Gradients are masked as they arrive (so clipping, accumulation and loss scaling see none of
    them) and pruned weights are zeroed after every step of the given optimizers, so that weight
    decay or old momentum cannot revive them. What the optimizers remember of pruned weights
    (momentum, second moments) is cleared at once.

    Call it after ``masks.apply(model)``::

        masks.apply(model)
        with keep_masked(model, masks, optimizer):
            train(model, optimizer)

    Parameters
    ----------
    model : the masked model; every parameter of ``masks`` is zero outside its mask
    masks : `MaskSet`, or parameter name -> bool mask, True = keep
    optimizers : all that update the masked parameters; at least one

    Raises
    ------
    MaskError
        The masks do not fit the model, are not on it yet, or none of an optimizer's parameters is
        masked (an optimizer made for another copy of the model, say).
    """
    if not optimizers:
        raise MaskError("keep_masked needs the optimizer (or optimizers) that will train the model")
    bound = bind(model, masks)
    for b in bound:
        alive = int((b.parameter.detach() != 0).logical_and_(~b.mask.to(b.parameter.device)).sum())
        if alive:
            raise MaskError(
                f"parameter {b.name!r} is non-zero at {alive} pruned weights; "
                "call masks.apply(model) before fine-tuning"
            )
    by_id = {id(twin): b for b in bound for twin in b.twins}
    for optimizer in optimizers:
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        if not any(id(p) in by_id for p in trained):
            raise MaskError(
                f"{type(optimizer).__name__} trains none of the masked parameters; "
                "was it made for another model?"
            )
        for p in trained:
            if id(p) in by_id:
                _clear_state(optimizer, p, by_id[id(p)].mask)
    return KeepMasked(bound, optimizers)


def _clear_state(optimizer: Optimizer, parameter: nn.Parameter, mask: Tensor) -> None:
    for value in optimizer.state.get(parameter, {}).values():
        if isinstance(value, Tensor) and value.shape == parameter.shape and value.ndim:
            value.masked_fill_(~mask.to(value.device), 0)
