"""Low-rank adapters on a sparse model, which merge into it without a weight coming back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from optiprune.masks import MaskError
from optiprune.masks.binding import Bound, bind

from .adapter_file import read_adapters, write_adapters
from .errors import FineTuningError
from .low_rank import MaskedLowRank

__all__ = ["SparseLoRA", "add_lora"]


def add_lora(
    model: nn.Module,
    masks: Mapping[str, Tensor],
    *,
    rank: int = 8,
    alpha: float = 16.0,
    names: Iterable[str] | None = None,
    also_train: Iterable[str] = (),
    seed: int = 0,
) -> SparseLoRA:
    """Put low-rank adapters on the masked weights of a sparse model, and freeze all the rest.

    A weight W with mask M becomes ``W + M * (alpha / rank * B A)``: LoRA's update (Hu et al. 2021,
    arXiv:2106.09685) with the mask on it (MaskLoRA; Zimmer et al. 2023, "PERP", arXiv:2312.15230).
    The mask is in the forward pass already, so merging changes nothing: neither an output nor a
    zero. Adding the plain B A to W, as merging common adapters does, fills every pruned weight.

    Any parameter of two or more dimensions can have one: Linear, convolutions, Transformers'
    Conv1D, embeddings. Adapters are float32 where weights are of lower precision. A forward pass
    makes each adapted weight anew (one product of the weight's size and rank, and a tensor of its
    size), which is the price of the mask; there is no dropout on the adapter's input.

    Call it after ``masks.apply(model)``::

        adapters = add_lora(model, masks, rank=8)
        train(model, torch.optim.AdamW(adapters.parameters(), lr=1e-3))
        adapters.merge()

    Parameters
    ----------
    masks : `MaskSet`, or parameter name -> bool mask, True = keep
    rank : of each update, at most the smaller side of the smallest matrix
    alpha : factor of the update, times 1 / rank
    names : masked parameters that get an adapter; by default all
    also_train : parameters without a mask that stay trainable, such as biases and norms
    seed : of the first values of A; B begins at zero. Global random state is not touched.

    Raises
    ------
    MaskError
        The masks do not fit the model or are not on it.
    FineTuningError
        A rank or alpha out of range; a name without a mask, or in ``also_train`` with one; a
        parameter of fewer than two dimensions or tied to another one. Nothing is changed then.
    """
    if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise FineTuningError(f"rank must be an integer of 1 or more, got {rank!r}")
    if not math.isfinite(alpha) or alpha <= 0:
        raise FineTuningError(f"alpha must be a positive number, got {alpha!r}")
    chosen = list(masks) if names is None else list(dict.fromkeys(names))
    for name in chosen:
        if name not in masks:
            raise FineTuningError(f"names: {name!r} has no mask; masked are: {', '.join(masks)}")
    if not chosen:
        raise FineTuningError("names is empty: there is nothing to adapt")
    bound = bind(model, {n: masks[n] for n in chosen})
    every = dict(model.named_parameters())
    trained = list(also_train)
    for name in trained:
        if name not in every:
            raise FineTuningError(f"also_train: {type(model).__name__} has no parameter {name!r}")
        if name in masks:
            raise FineTuningError(
                f"also_train: {name!r} is masked; an adapter trains it, or masks.keep does"
            )
    for b in bound:
        _check(b, rank)
    seeds = torch.Generator().manual_seed(seed)
    made: dict[str, MaskedLowRank] = {}
    for b in bound:
        dtype = torch.promote_types(b.parameter.dtype, torch.float32)
        mask = b.mask.to(b.parameter.device)
        made[b.name] = MaskedLowRank(mask, rank, alpha / rank, dtype, seeds)
    return SparseLoRA(model, made, trained, rank, float(alpha))


class SparseLoRA:
    """Adapters on a model; `add_lora` makes it.

    While they are on, the model's parameters have other names
    (``fc.parametrizations.weight.original``): save the adapters with `save`, and the model once
    they are merged or removed.
    """

    def __init__(
        self,
        model: nn.Module,
        adapters: Mapping[str, MaskedLowRank],
        also_train: Iterable[str],
        rank: int,
        alpha: float,
    ) -> None:
        self._model = model
        self._adapters = dict(adapters)
        self._rank, self._alpha = rank, alpha
        self._required = [(p, p.requires_grad) for p in model.parameters()]
        kept = [model.get_parameter(n) for n in also_train]
        for p, _ in self._required:
            p.requires_grad_(False)
        for p in kept:
            p.requires_grad_(True)
        self._also = kept
        self._on = True
        owners = [self._owner(name)[0] for name in self._adapters]
        self._orders = [(m, list(m._parameters)) for m in owners]
        for name, adapter in self._adapters.items():
            module, attribute = self._owner(name)
            adapter.train(module.training)
            parametrize.register_parametrization(module, attribute, adapter)

    @property
    def active(self) -> bool:
        """Whether the adapters are on the model."""
        return self._on

    @property
    def names(self) -> tuple[str, ...]:
        """The adapted parameters."""
        return tuple(self._adapters)

    def parameters(self) -> list[nn.Parameter]:
        """What is to be trained: every A and B, and the parameters of ``also_train``."""
        return [p for a in self._adapters.values() for p in (a.a, a.b)] + self._also

    def count(self) -> int:
        """Numbers in all A and B."""
        return sum(p.numel() for a in self._adapters.values() for p in (a.a, a.b))

    def merge(self) -> None:
        """Write the updates into the weights and take the adapters off; `requires_grad` as before.

        Outputs stay what they were, bit for bit, and pruned weights zero.

        Raises
        ------
        FineTuningError
            A merged weight would hold NaN or infinity, or the adapters are off already. Nothing is
            changed then.
        """
        self._need_on()
        for name, adapter in self._adapters.items():
            module, attribute = self._owner(name)
            with torch.no_grad():
                merged = getattr(module, attribute)
            if not bool(torch.isfinite(merged).all()):
                raise FineTuningError(
                    f"the merged weight {name!r} holds NaN or infinity: training diverged. "
                    "remove() gives the sparse model back as it was before"
                )
            if bool(merged[~adapter.mask].any()):
                raise FineTuningError(
                    f"the base weight {name!r} was written to while adapters were on it: pruned "
                    "weights are not zero. Apply the masks to it again, or remove()"
                )
        self._take_off(merged=True)

    def remove(self) -> None:
        """Take the adapters off; the weights are as they were before `add_lora`, bit for bit."""
        self._need_on()
        self._take_off(merged=False)

    def save(self, path: str | Path) -> None:
        """Write A and B (safetensors), with a hash of each mask. Raises OSError."""
        write_adapters(path, self._adapters, self._rank, self._alpha)

    def load(self, path: str | Path) -> None:
        """Read A and B that `save` wrote, for the same parameters, masks, rank and alpha.

        Raises
        ------
        FineTuningError
            A file that is damaged, of another kind, or for other adapters or masks. Nothing is
            changed then.
        """
        stored = read_adapters(path, self._adapters, self._rank, self._alpha)
        with torch.no_grad():
            for name, (a, b) in stored.items():
                self._adapters[name].a.copy_(a)
                self._adapters[name].b.copy_(b)

    def _take_off(self, *, merged: bool) -> None:
        for name in self._adapters:
            module, attribute = self._owner(name)
            parametrize.remove_parametrizations(module, attribute, leave_parametrized=merged)
        for module, order in self._orders:
            # torch puts a weight last that was parametrized; optimizers know weights by their place
            for attribute in order:
                module._parameters[attribute] = module._parameters.pop(attribute)
        for p, required in self._required:
            p.requires_grad_(required)
        self._on = False

    def _owner(self, name: str) -> tuple[nn.Module, str]:
        path, _, attribute = name.rpartition(".")
        return self._model.get_submodule(path), attribute

    def _need_on(self) -> None:
        if not self._on:
            raise FineTuningError("these adapters were merged or removed before")

    def __repr__(self) -> str:
        state = "on" if self._on else "off"
        return f"SparseLoRA({len(self._adapters)} weights, rank {self._rank}, {state})"


def _check(b: Bound, rank: int) -> None:
    p = b.parameter
    if p.ndim < 2 or p.numel() == 0:
        raise FineTuningError(
            f"{b.name!r} has shape {tuple(p.shape)}; an adapter needs a matrix. Leave it out of "
            "names (also_train can train it whole, if it has no mask)"
        )
    side = min(p.shape[0], p[0].numel())
    if rank > side:
        raise FineTuningError(
            f"rank {rank} is more than {b.name!r} has ({p.shape[0]} x {p[0].numel()}: {side})"
        )
    if len(b.aliases) > 1:
        raise FineTuningError(
            f"{' and '.join(repr(n) for n in b.aliases)} are one tied tensor; an adapter on one "
            "would part them. Leave it out of names"
        )
    alive = int((p.detach() != 0).logical_and_(~b.mask.to(p.device)).sum())
    if alive:
        raise MaskError(
            f"parameter {b.name!r} is non-zero at {alive} pruned weights; call "
            "masks.apply(model) before adapters are put on it"
        )
