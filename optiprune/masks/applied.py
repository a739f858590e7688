"""Masks on a model: written all or none, and taken back bit by bit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Literal

import torch
from torch import Tensor, nn

from .binding import Bound, describe_nonfinite
from .errors import MaskError
from .hashing import hash_tensor

__all__ = ["AppliedMasks", "check_values", "new_weights", "write"]


class AppliedMasks:
    """Handle of masks that lie on a model, with the dense weights that were there before.

    ``revert()`` puts the dense weights back, bit for bit, whatever happened to the parameters in
    between (fine-tuning, a move to another device). As a context manager it reverts at the end of
    the block. Handles of several applications to one model are to be reverted in reverse order,
    since each remembers what it found.
    """

    def __init__(self, bound: Sequence[Bound], originals: Sequence[Tensor]) -> None:
        self._bound = list(bound)
        self._originals: list[Tensor] | None = list(originals)

    @property
    def active(self) -> bool:
        """Whether the dense weights are still held, so that `revert` can run."""
        return self._originals is not None

    @property
    def names(self) -> tuple[str, ...]:
        """The masked parameters, every listed name."""
        return tuple(name for b in self._bound for name in b.listed)

    def original(self, name: str) -> Tensor:
        """A copy of the dense weights of one parameter, as they were before the masks.

        Raises `MaskError` for a parameter that was not masked, or after `revert`.
        """
        for b, t in zip(self._bound, self._held(), strict=True):
            if name in b.listed:
                return t.clone()
        raise MaskError(f"{name!r} was not masked; masked: {', '.join(self.names)}")

    def hashes(self) -> dict[str, str]:
        """Hashes of the dense weights (see `weight_hashes`), every listed name."""
        return {
            name: digest
            for b, t in zip(self._bound, self._held(), strict=True)
            for digest in [hash_tensor(t)]
            for name in b.listed
        }

    def revert(self) -> None:
        """Put the dense weights back and let go of them.

        Raises
        ------
        MaskError
            Reverted (or made permanent) before, or a parameter's shape or dtype has changed since,
            so that the old bits do not fit: nothing is written then.
        """
        originals = self._held()
        for b, t in zip(self._bound, originals, strict=True):
            if b.parameter.shape != t.shape or b.parameter.dtype != t.dtype:
                raise MaskError(
                    f"parameter {b.name!r} was {tuple(t.shape)} {t.dtype} when masked and is "
                    f"{tuple(b.parameter.shape)} {b.parameter.dtype} now; it cannot be reverted"
                )
        with torch.no_grad():
            for b, t in zip(self._bound, originals, strict=True):
                b.parameter.copy_(t)
        self._originals = None

    def make_permanent(self) -> None:
        """Forget the dense weights and free their memory: the zeros stay."""
        self._held()
        self._originals = None

    def _held(self) -> list[Tensor]:
        if self._originals is None:
            raise MaskError("these masks were reverted or made permanent before")
        return self._originals

    def __enter__(self) -> AppliedMasks:
        self._held()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self.active:
            self.revert()

    def __repr__(self) -> str:
        state = "active" if self.active else "closed"
        return f"AppliedMasks({len(self._bound)} parameters, {state})"


def new_weights(b: Bound, values: Mapping[str, Tensor]) -> Tensor:
    """What the parameter becomes: its values, or its own weights, where kept; 0 elsewhere.

    Same device and dtype as the parameter. Raises `MaskError` for values of another shape, values
    that are not finite in the parameter's dtype, or tied names with different values.
    """
    p = b.parameter.detach()
    mask = b.mask.to(p.device)
    given = [name for name in b.listed if name in values]
    if not given:
        # not p * mask: that leaves -0.0 behind
        return p.masked_fill(~mask, 0.0)
    out = check_values(given[0], values[given[0]], b).masked_fill(~mask, 0.0)
    for other in given[1:]:
        if not torch.equal(out, check_values(other, values[other], b).masked_fill(~mask, 0.0)):
            raise MaskError(
                f"parameters {given[0]!r} and {other!r} are tied, but their values differ"
            )
    return out


def check_values(name: str, v: Tensor, b: Bound) -> Tensor:
    """Values for a parameter, on its device and in its dtype. Raises `MaskError`."""
    p = b.parameter
    if not isinstance(v, Tensor) or not v.is_floating_point() or v.is_meta:
        what = f"{v.dtype} on {v.device}" if isinstance(v, Tensor) else type(v).__name__
        raise MaskError(
            f"values for {name!r} must be a floating-point tensor with data, not {what}"
        )
    if v.shape != p.shape:
        raise MaskError(
            f"values for {name!r} have shape {tuple(v.shape)}, the parameter {tuple(p.shape)}"
        )
    cast = v.detach().to(device=p.device, dtype=p.dtype)
    if not bool(torch.isfinite(cast).all()):
        raise MaskError(f"values for {name!r} hold, as {p.dtype}, {describe_nonfinite(cast)}")
    return cast


def write(
    bound: Sequence[Bound], values: Mapping[str, Tensor], originals: Literal["device", "cpu"]
) -> AppliedMasks:
    """Write masks (and values) to bound parameters, all or none."""
    # Every check runs before the first write, so the model is whole if one of them fails. The new
    # weights are made twice rather than all held: that would be a third copy of the model.
    for b in bound:
        new_weights(b, values)
    held = [_copy(b.parameter, originals) for b in bound]
    started = 0
    try:
        with torch.no_grad():
            for b in bound:
                started += 1
                b.parameter.copy_(new_weights(b, values))
    except BaseException:
        with torch.no_grad():
            for b, t in zip(bound[: started - 1], held, strict=False):
                b.parameter.copy_(t)
            # The one that failed may be half written, or refuse every write.
            with suppress(RuntimeError):
                bound[started - 1].parameter.copy_(held[started - 1])
        raise
    return AppliedMasks(bound, held)


def _copy(parameter: nn.Parameter, where: Literal["device", "cpu"]) -> Tensor:
    t = parameter.detach()
    return t.clone() if where == "device" or t.device.type == "cpu" else t.cpu()
