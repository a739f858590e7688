"""Which weights of a model to keep: the one thing in optiprune that writes to a model."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from . import file, torch_prune
from .applied import AppliedMasks, new_weights, write
from .binding import all_parameters, bind, describe_nonfinite
from .counts import MaskCount
from .errors import MaskError, MaskFileError
from .hashing import weight_hashes
from .keep import KeepMasked, keep_masked
from .pattern import check_pattern

__all__ = ["MaskSet"]


class MaskSet(Mapping[str, Tensor]):
    """Parameter name -> bool mask, True = keep.

    An ordered, read-only mapping. Names are those of ``model.named_parameters()``, each mask has
    its parameter's shape. Parameters that are not listed stay dense. The set owns its tensors:
    they are copied on the way in, and are not to be written to.

    Parameters
    ----------
    masks : name -> bool tensor
    fitted : name -> re-fitted weights, a floating-point tensor of the mask's shape, finite. Only
        kept entries count. They go with the masks wherever these are applied or saved.
    hashes : name -> hash of the dense weights (`weight_hashes`), for the file

    Raises
    ------
    MaskError
        No mask at all, a mask that is not a bool tensor with data, or fitted weights or hashes that
        do not go with the masks.
    """

    def __init__(
        self,
        masks: Mapping[str, Tensor],
        *,
        fitted: Mapping[str, Tensor] | None = None,
        hashes: Mapping[str, str] | None = None,
    ) -> None:
        self._masks = {name: _checked_mask(name, mask) for name, mask in masks.items()}
        if not self._masks:
            raise MaskError("a MaskSet needs at least one parameter, got none")
        self._fitted = {n: self._checked_values(n, v) for n, v in (fitted or {}).items()}
        self._hashes = dict(hashes or {})
        for name in self._hashes:
            self._require(name, "hash")

    # ---- where masks come from

    @classmethod
    def from_model(cls, model: nn.Module, names: Iterable[str] | None = None) -> MaskSet:
        """Masks of an already sparse model: keep what is non-zero.

        ``names``: the parameters to read; by default every floating-point one with two or more
        dimensions (so no biases and no norms), tied ones under their first name only.

        Raises `MaskError` as `validate` does, or when there is no such parameter.
        """
        if names is None:
            chosen = [
                n for n, p in model.named_parameters() if p.ndim >= 2 and p.is_floating_point()
            ]
            if not chosen:
                raise MaskError(
                    f"{type(model).__name__} has no weight of two or more dimensions to mask"
                )
        else:
            chosen = list(names)
        parameters = all_parameters(model)
        everything = {
            n: torch.ones(parameters[n].shape if n in parameters else (), dtype=torch.bool)
            for n in chosen
        }
        bind(model, everything)
        return cls({n: parameters[n].detach() != 0 for n in chosen})

    @classmethod
    def from_prune(cls, model: nn.Module) -> MaskSet:
        """Masks of a model pruned by torch.nn.utils.prune (``weight_orig``, ``weight_mask``).

        Hashes are taken of the dense ``weight_orig``. Raises `MaskError` if nothing is pruned so.
        """
        masks = torch_prune.read_masks(model)
        return cls(masks, hashes=weight_hashes(model, masks))

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        model: nn.Module | None = None,
        *,
        allow_different_weights: bool = False,
    ) -> MaskSet:
        """Read a mask file (see `save`), re-fitted weights included. Nothing is applied.

        Parameters
        ----------
        path : the file
        model : the dense model that the masks are for. Given, its weights are compared with the
            hashes in the file, and every parameter with its mask.
        allow_different_weights : check names and shapes only, so that masks made for one model
            can be put on another of the same architecture

        Raises
        ------
        FileNotFoundError
            No such file.
        MaskFileError
            Damaged, not a mask file, or made for other weights; the first parameter that differs
            is named.
        MaskError
            The model lacks a parameter, or has it in another shape (see `validate`).
        """
        content = file.read_file(path)
        try:
            out = cls(content.masks, fitted=content.values, hashes=content.hashes)
        except MaskError as e:
            raise MaskFileError(f"{path}: {e}") from e
        if model is not None:
            out.validate(model)
            if not allow_different_weights:
                out._compare_hashes(path, model)
        return out

    # ---- mapping

    def __getitem__(self, name: str) -> Tensor:
        return self._masks[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._masks)

    def __len__(self) -> int:
        return len(self._masks)

    def __eq__(self, other: object) -> bool:
        """Same parameters, in any order, with the same masks; fitted weights are not compared."""
        if not isinstance(other, MaskSet):
            return NotImplemented
        return self.keys() == other.keys() and all(
            mask.shape == other[name].shape and torch.equal(mask, other[name].to(mask.device))
            for name, mask in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return (
            f"MaskSet({len(self)} parameters, {self.count()} of {self.total()} kept, "
            f"density {self.density():.4g})"
        )

    @property
    def fitted(self) -> Mapping[str, Tensor]:
        """Re-fitted weights by parameter, 0 where pruned; empty when kept weights keep theirs."""
        return MappingProxyType(self._fitted)

    @property
    def hashes(self) -> Mapping[str, str]:
        """Hashes of the dense weights by parameter, as far as they are known."""
        return MappingProxyType(self._hashes)

    # ---- counts

    def count(self) -> int:
        """Weights kept, over all parameters (a tensor listed under two names counts twice)."""
        return sum(c.kept for c in self.per_parameter())

    def total(self) -> int:
        """Weights, kept or not, over all parameters."""
        return sum(m.numel() for m in self._masks.values())

    def density(self) -> float:
        """Kept over all; 1.0 when there are no weights at all."""
        total = self.total()
        return self.count() / total if total else 1.0

    def per_parameter(self) -> list[MaskCount]:
        """One record a parameter, in order."""
        return [
            MaskCount(name, tuple(m.shape), int(m.sum()), m.numel())
            for name, m in self._masks.items()
        ]

    def check_pattern(
        self, pattern: str, names: Iterable[str] | None = None, *, exactly: bool = False
    ) -> None:
        """Check that masks keep to 'N:M' (at most N of M, or ``exactly``) or 'block:RxC'.

        ``names``: the parameters to look at, by default all. Raises `MaskError` naming parameter,
        row and group of the first place that breaks it; see `optiprune.masks.check_pattern`.
        """
        chosen = list(self) if names is None else list(names)
        for name in chosen:
            self._require(name, "pattern")
        check_pattern({name: self[name] for name in chosen}, pattern, exactly=exactly)

    # ---- set operations: fitted weights belong to one mask, so the results carry none

    def intersect(self, other: MaskSet) -> MaskSet:
        """Keep what both keep. Raises `MaskError` unless names and shapes agree."""
        return self._combine(other, torch.logical_and)

    def union(self, other: MaskSet) -> MaskSet:
        """Keep what either keeps. Raises `MaskError` unless names and shapes agree."""
        return self._combine(other, torch.logical_or)

    def difference(self, other: MaskSet) -> MaskSet:
        """Keep what this set keeps and the other prunes. Raises `MaskError` as `intersect`."""
        return self._combine(other, lambda a, b: a & ~b)

    def invert(self) -> MaskSet:
        """Keep what this set prunes."""
        return MaskSet({n: ~m for n, m in self.items()}, hashes=self._hashes)

    def hamming(self, other: MaskSet) -> int:
        """Number of weights on which the two differ. Raises `MaskError` as `intersect`."""
        return self._combine(other, torch.logical_xor).count()

    def with_fitted(self, fitted: Mapping[str, Tensor]) -> MaskSet:
        """The same masks with these re-fitted weights instead (``{}`` for none)."""
        return MaskSet(self, fitted=fitted, hashes=self._hashes)

    def with_hashes(self, hashes: Mapping[str, str]) -> MaskSet:
        """The same masks with these hashes of the dense weights instead."""
        return MaskSet(self, fitted=self._fitted, hashes=hashes)

    def to(self, device: torch.device | str) -> MaskSet:
        """A copy with masks and fitted weights on that device."""
        return MaskSet(
            {n: m.to(device) for n, m in self.items()},
            fitted={n: v.to(device) for n, v in self._fitted.items()},
            hashes=self._hashes,
        )

    # ---- on a model

    def validate(self, model: nn.Module) -> None:
        """Check that the masks fit the model; nothing is written.

        Raises
        ------
        MaskError
            A parameter is missing or has another shape, is on the meta device, is not of a floating
            dtype, holds NaN or infinity, cannot hold the fitted weights, or is tied to one with
            a different mask. The message names it.
        """
        for b in bind(model, self._masks):
            new_weights(b, self._fitted)

    def apply(
        self,
        model: nn.Module,
        values: Mapping[str, Tensor] | None = None,
        *,
        originals: Literal["device", "cpu"] = "device",
    ) -> AppliedMasks:
        """Write the masks to the model: kept weights stay (or take ``values``), others become 0.

        Everything is checked first: on any error the model is exactly as it was. Parameters stay
        the same objects, on their device and in their dtype.

        Parameters
        ----------
        model : the dense model
        values : name -> weights for the kept entries, the parameter's shape, finite in its dtype.
            By default the set's own ``fitted`` weights; ``{}`` to leave those out.
        originals : where the dense weights are held for ``revert()``: beside the parameter, or in
            main memory, which spares an accelerator's

        Returns
        -------
        AppliedMasks
            Handle to revert; also a context manager.

        Raises
        ------
        MaskError
            As `validate`, or for values that do not fit.
        """
        if originals not in ("device", "cpu"):
            raise MaskError(f"originals must be 'device' or 'cpu', got {originals!r}")
        chosen = self._fitted if values is None else values
        for name in chosen:
            self._require(name, "value")
        return write(bind(model, self._masks), chosen, originals)

    def revert(self, applied: AppliedMasks) -> None:
        """``applied.revert()``, for those who look for it here."""
        applied.revert()

    def make_permanent(self, model: nn.Module) -> None:
        """Bake the masks (and fitted weights) in, with no way back.

        Parameters that torch.nn.utils.prune holds (``weight_orig``, ``weight_mask``) become plain
        ones again. Raises `MaskError` as `apply`; nothing is written then.
        """
        held = {name for name, _, _ in torch_prune.reparametrised(model)}
        listed = [name for name in self if name in held]
        if not listed:
            self.apply(model).make_permanent()
            return
        before = torch_prune.read_masks(model)
        torch_prune.remove_reparametrisation(model, listed, dense=True)
        try:
            self.apply(model).make_permanent()
        except BaseException:
            torch_prune.add_reparametrisation(model, {n: before[n] for n in listed})
            raise

    def to_prune(self, model: nn.Module) -> None:
        """Put the masks on the model in the form of torch.nn.utils.prune.

        Each weight becomes ``weight_orig`` (dense, trained on) times ``weight_mask``, recomputed
        before every forward pass; fitted weights, if any, are written to the kept entries of
        ``weight_orig``. Tied weights get it under all their names.

        Raises `MaskError` as `validate`, also when a parameter is in that form already.
        """
        bound = bind(model, self._masks)
        dense = [b.parameter.detach().clone() for b in bound]
        fresh = {}
        for b in bound:
            mask = b.mask.to(b.parameter.device)
            fresh[b.name] = torch.where(mask, new_weights(b, self._fitted), b.parameter.detach())
        try:
            with torch.no_grad():
                for b in bound:
                    b.parameter.copy_(fresh[b.name])
            torch_prune.add_reparametrisation(model, self._masks)
        except BaseException:
            with torch.no_grad():
                for b, t in zip(bound, dense, strict=True):
                    b.parameter.copy_(t)
            raise

    @staticmethod
    def remove_prune(
        model: nn.Module, names: Iterable[str] | None = None, *, dense: bool = False
    ) -> None:
        """Undo `to_prune`: plain parameters again, with the zeros, or ``dense`` without them.

        ``names``: which ones, by default all. Raises `MaskError` for one that is not in that form.
        """
        torch_prune.remove_reparametrisation(model, names, dense=dense)

    def keep(self, model: nn.Module, *optimizers: Optimizer) -> KeepMasked:
        """Keep the pruned weights zero in fine-tuning: see `keep_masked`."""
        return keep_masked(model, self._masks, *optimizers)

    # ---- file

    def save(
        self,
        path: str | os.PathLike[str],
        model: nn.Module | AppliedMasks | None = None,
        config: object = None,
        metadata: Mapping[str, Any] | None = None,
        *,
        values: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Write a mask file: bit-packed masks, shapes, hashes of the dense weights, fitted weights.

        The dense model and this file together give the pruned model again; `load` refuses any
        other model. The file appears whole or not at all.

        Parameters
        ----------
        path : the file to write; one that exists is replaced
        model : what to take the hashes of the dense weights from, unless the set has them already:
            the dense model, one in prune form, or the handle that `apply` returned. Without
            hashes the file cannot tell models apart, and `load` says so.
        config : a mapping or a `Config`, stored as JSON
        metadata : more to store, as JSON
        values : re-fitted weights; by default the set's own ``fitted``. Kept entries are stored.

        Raises
        ------
        MaskError
            The model does not fit, is masked already (its dense weights are gone, so it cannot be
            hashed), or config or metadata are not JSON.
        """
        chosen = self if values is None else self.with_fitted(values)
        hashes = self._hashes
        if isinstance(model, AppliedMasks):
            hashes = hashes or model.hashes()
        elif model is not None and not hashes:
            hashes = self._hash_dense(model)
        for name in self:
            if hashes and name not in hashes:
                raise MaskError(f"there is a hash for some parameters, but none for {name!r}")
        file.write_file(path, chosen._masks, chosen._fitted, hashes, config, metadata)

    # ---- inside

    def _hash_dense(self, model: nn.Module) -> dict[str, str]:
        held = {name for name, _, _ in torch_prune.reparametrised(model)}
        plain = {n: m for n, m in self.items() if n not in held}
        bound = bind(model, plain)
        pruned = [
            b.parameter.detach()[~b.mask.to(b.parameter.device)] for b in bound if not b.mask.all()
        ]
        if pruned and not any(bool(p.any()) for p in pruned):
            raise MaskError(
                "every pruned weight of this model is zero: it seems to be masked already, and the "
                "file needs hashes of the dense weights. Save before applying, pass the handle "
                "that apply() returned, or, if these are the dense weights, take them with "
                "masks.with_hashes(weight_hashes(model, masks))"
            )
        return weight_hashes(model, self)

    def _compare_hashes(self, path: str | os.PathLike[str], model: nn.Module) -> None:
        for name in self:
            if name not in self._hashes:
                raise MaskFileError(
                    f"{path} holds no hash of the dense weights of {name!r} (it was saved without "
                    "the model), so it cannot be checked against this one; pass "
                    "allow_different_weights=True to use it all the same"
                )
            if weight_hashes(model, [name])[name] != self._hashes[name]:
                raise MaskFileError(
                    f"{path} was made for other weights: parameter {name!r} differs from the dense "
                    "one (another checkpoint, another dtype, or masked already). Load the original "
                    "model, or pass allow_different_weights=True to use the masks all the same"
                )

    def _combine(self, other: MaskSet, op: Callable[[Tensor, Tensor], Tensor]) -> MaskSet:
        if not isinstance(other, MaskSet):
            raise MaskError(f"expected a MaskSet, got {type(other).__name__}")
        odd = sorted(self.keys() ^ other.keys())
        if odd:
            raise MaskError(f"the mask sets hold different parameters: {odd[0]!r} is in one only")
        out = {}
        for name, mask in self.items():
            if mask.shape != other[name].shape:
                raise MaskError(
                    f"the masks of {name!r} have shapes {tuple(mask.shape)} "
                    f"and {tuple(other[name].shape)}"
                )
            out[name] = op(mask, other[name].to(mask.device))
        same_model = self._hashes == other._hashes
        return MaskSet(out, hashes=self._hashes if same_model else None)

    def _require(self, name: str, what: str) -> None:
        if name not in self._masks:
            raise MaskError(f"there is a {what} for {name!r}, but no mask of that name")

    def _checked_values(self, name: str, value: Tensor) -> Tensor:
        self._require(name, "fitted weight")
        mask = self._masks[name]
        if not isinstance(value, Tensor) or not value.is_floating_point() or value.is_meta:
            raise MaskError(f"fitted weights of {name!r} must be a floating-point tensor with data")
        if value.shape != mask.shape:
            raise MaskError(
                f"fitted weights of {name!r} have shape {tuple(value.shape)}, "
                f"its mask has {tuple(mask.shape)}"
            )
        out = value.detach().masked_fill(~mask.to(value.device), 0.0)
        if not bool(torch.isfinite(out).all()):
            raise MaskError(f"fitted weights of {name!r} hold {describe_nonfinite(out)}")
        return out


def _checked_mask(name: object, mask: object) -> Tensor:
    if not isinstance(name, str):
        raise MaskError(f"a mask's name must be a parameter name (text), got {name!r}")
    if not isinstance(mask, Tensor):
        raise MaskError(f"the mask of {name!r} must be a bool tensor, got {type(mask).__name__}")
    if mask.dtype != torch.bool:
        raise MaskError(
            f"the mask of {name!r} must be bool (True = keep), got {mask.dtype}; "
            "convert it with `mask != 0`"
        )
    if mask.is_meta:
        raise MaskError(f"the mask of {name!r} is on the meta device and holds no data")
    return mask.detach().clone(memory_format=torch.contiguous_format)
