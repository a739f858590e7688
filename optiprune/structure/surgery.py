"""Smaller tensors in the modules of a model, and the sizes that these modules keep beside them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .trace import tensors_of
from .units import Ids

__all__ = ["Cut", "SurgeryError", "cut_tensors"]


class SurgeryError(RuntimeError):
    """A module cannot hold what would be left of it."""


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """What stays of one tensor.

    Attributes
    ----------
    kept : dimension -> indices that stay, ascending
    columns : of a grouped convolution's weight, (groups, kept) indices of dimension 1; None
        elsewhere
    """

    kept: Mapping[int, Ids]
    columns: Ids | None = None

    def of(self, t: Tensor) -> Tensor:
        for dim, index in self.kept.items():
            t = t.index_select(dim, torch.from_numpy(index).to(t.device))
        if self.columns is None:
            return t
        groups = len(self.columns)
        parts = t.reshape(groups, -1, *t.shape[1:])
        columns = torch.from_numpy(self.columns).to(t.device)
        return torch.cat([p.index_select(1, c) for p, c in zip(parts, columns, strict=True)])

    def zero(self, t: Tensor) -> None:
        """Zero in place what `of` leaves out."""
        for dim, index in self.kept.items():
            gone = np.setdiff1d(np.arange(t.shape[dim]), index)
            t.index_fill_(dim, torch.from_numpy(gone).to(t.device), 0)
        if self.columns is not None:
            stays = torch.zeros(len(self.columns), t.shape[1], dtype=torch.bool)
            stays.scatter_(1, torch.from_numpy(self.columns), True)
            rows = stays.repeat_interleave(len(t) // len(stays), 0).to(t.device)
            t.masked_fill_(~rows.reshape(*rows.shape, *[1] * (t.ndim - 2)), 0)


def cut_tensors(model: nn.Module, cuts: Mapping[str, Cut]) -> None:
    """Put what stays into the model, in place, tied tensors once.

    Raises
    ------
    SurgeryError
        A module has a size that does not follow from its tensors.
    """
    made: dict[int, Tensor] = {}
    tensors = tensors_of(model)
    with torch.no_grad():
        for name, cut in cuts.items():
            tensor = tensors[name]
            made[id(tensor)] = _like(tensor, cut.of(tensor.detach()))
        for module in model.modules():
            changed = False
            for store in (module._parameters, module._buffers):
                for attribute, old in list(store.items()):
                    if old is not None and id(old) in made:
                        store[attribute] = made[id(old)]  # type: ignore[assignment]
                        changed = True
            if changed:
                _resize(module)


def _like(old: Tensor, new: Tensor) -> Tensor:
    if isinstance(old, nn.Parameter):
        return nn.Parameter(new, requires_grad=old.requires_grad)
    return new


def _linear(m: nn.Linear) -> None:
    m.out_features, m.in_features = m.weight.shape


def _convolution(m: nn.modules.conv._ConvNd) -> None:
    transposed = m.transposed
    before = m.groups
    depthwise = before > 1 and before == m.in_channels
    rows, columns = m.weight.shape[:2]
    if transposed:
        if before > 1:
            raise SurgeryError(f"{m}: a grouped transposed convolution keeps its size")
        m.in_channels, m.out_channels = rows, columns
        return
    if depthwise:
        each = m.out_channels // before
        if rows % each:
            raise SurgeryError(f"{m}: {rows} rows are no multiple of {each} for each channel")
        m.groups = rows // each
    m.out_channels, m.in_channels = rows, columns * m.groups
    if rows % m.groups:
        raise SurgeryError(f"{m}: {rows} rows do not divide into {m.groups} groups")


def _batch_norm(m: nn.modules.batchnorm._NormBase) -> None:
    source = m.running_mean if m.running_mean is not None else m.weight
    if source is not None:
        m.num_features = len(source)


def _group_norm(m: nn.GroupNorm) -> None:
    size = m.num_channels // m.num_groups
    channels = len(m.weight)
    if channels % size:
        raise SurgeryError(f"{m}: {channels} channels are not whole groups of {size}")
    m.num_channels, m.num_groups = channels, channels // size


def _embedding(m: nn.Embedding) -> None:
    m.num_embeddings, m.embedding_dim = m.weight.shape


def _prelu(m: nn.PReLU) -> None:
    m.num_parameters = len(m.weight)


_RESIZE: tuple[tuple[type[nn.Module], Callable[..., None]], ...] = (
    (nn.Linear, _linear),
    (nn.modules.conv._ConvNd, _convolution),
    (nn.modules.batchnorm._NormBase, _batch_norm),
    (nn.GroupNorm, _group_norm),
    (nn.Embedding, _embedding),
    (nn.PReLU, _prelu),
)


def _resize(module: nn.Module) -> None:
    if type(module).__name__ == "Conv1D":  # of transformers, which is no dependency
        conv1d: Any = module
        conv1d.nx, conv1d.nf = conv1d.weight.shape
        return
    for kind, resize in _RESIZE:
        if isinstance(module, kind):
            resize(module)
            return
