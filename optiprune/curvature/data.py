"""Calibration data: whatever the user iterates over, held as samples that can be drawn by index."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

__all__ = ["Batch", "CalibrationError", "CalibrationSet"]

Tree: TypeAlias = Any
"""A tensor, or tuples, lists and dicts of them."""


class CalibrationError(ValueError):
    """The calibration data cannot be used; the message says which batch and why."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Model inputs and, where given, targets; the first dimension counts the samples."""

    inputs: Tree
    targets: Tree | None

    @property
    def n(self) -> int:
        return _length(self.inputs)

    def take(self, index: Tensor | slice) -> Batch:
        n = self.n

        def pick(t: Tensor) -> Tensor:
            return t[index] if t.ndim and t.shape[0] == n else t

        targets = None if self.targets is None else tree_map(pick, self.targets)
        return Batch(tree_map(pick, self.inputs), targets)


class CalibrationSet:
    """All calibration batches in memory, on the device of the model.

    Batches of equal shapes are joined, so that samples are drawn one by one; batches of unequal
    shapes (token sequences of different lengths) stay whole and are drawn whole.
    """

    def __init__(self, batches: Sequence[Batch]) -> None:
        if not batches or sum(b.n for b in batches) == 0:
            raise CalibrationError("there is no calibration data: the iterable gave no sample")
        self._batches = _join(list(batches))
        self._starts = np.cumsum([0] + [b.n for b in self._batches])

    @classmethod
    def collect(cls, data: Iterable[Any], device: torch.device) -> CalibrationSet:
        """Read all of ``data``: input batches, or pairs (inputs, targets).

        An item that is a tuple or list of exactly two is a pair; several inputs are therefore given
        as a tuple inside a pair, or as a dict (passed by keyword). A dict is inputs alone.

        Raises
        ------
        CalibrationError
            No data; not an iterable; a pair that is not inside a list; a batch on another device
            than the model; NaN or infinite inputs; items with and without targets mixed.
        """
        if isinstance(data, CalibrationSet):
            return data
        if isinstance(data, Tensor):
            data = [data]  # one batch: iterating over it would give single samples without a batch
        try:
            items = list(data)
        except TypeError:
            raise CalibrationError(
                f"data must be an iterable of batches, got {type(data).__name__}"
            ) from None
        if _is_bare_pair(items):
            raise CalibrationError(
                "data is one pair (inputs, targets) and not an iterable of batches; put it in a "
                "list: [(inputs, targets)]"
            )
        if not items:
            raise CalibrationError("there is no calibration data: the iterable is empty")
        batches = [_as_batch(i, item, device) for i, item in enumerate(items)]
        with_targets = sum(b.targets is not None for b in batches)
        if 0 < with_targets < len(batches):
            raise CalibrationError(
                f"{with_targets} of {len(batches)} batches have targets; give all or none"
            )
        return cls(batches)

    @property
    def n(self) -> int:
        """Number of samples."""
        return int(self._starts[-1])

    @property
    def has_targets(self) -> bool:
        return self._batches[0].targets is not None

    @property
    def joined(self) -> bool:
        """Whether samples can be drawn one by one."""
        return len(self._batches) == 1

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, at most ``size`` at once."""
        for b in self._batches:
            for i in range(0, b.n, size):
                yield b.take(slice(i, i + size))

    def minibatches(self, size: int, rng: np.random.Generator) -> Iterator[tuple[Batch, Tensor]]:
        """All samples in random order, ``size`` at once, with their positions in 0 .. n-1.

        Batches that are not joined come in random order, each cut on its own.
        """
        for which in rng.permutation(len(self._batches)):
            batch, start = self._batches[which], int(self._starts[which])
            order = torch.from_numpy(rng.permutation(batch.n))
            for index in torch.split(order, size):
                yield batch.take(index), index + start

    def draw(self, like: Batch, rng: np.random.Generator) -> Batch:
        """As many samples as ``like`` holds and of its shapes, at random: of all samples if they
        are joined, else its own in another order."""
        if not self.joined:
            return like.take(torch.from_numpy(rng.permutation(like.n)))
        return self._batches[0].take(torch.from_numpy(rng.integers(self.n, size=like.n)))

    def subset(self, index: np.ndarray) -> CalibrationSet:
        """The samples ``index`` (positions in 0 .. n-1, of whole batches if not joined)."""
        if self.joined:
            return CalibrationSet(
                [self._batches[0].take(torch.as_tensor(index, dtype=torch.int64))]
            )
        which = np.unique(np.searchsorted(self._starts, index, side="right") - 1)
        return CalibrationSet([self._batches[i] for i in which])

    def sample(self, n: int, rng: np.random.Generator) -> CalibrationSet:
        """About n random samples without repetition (all of them if there are fewer)."""
        if n >= self.n:
            return self
        if self.joined:
            return self.subset(np.sort(rng.choice(self.n, n, replace=False)))
        order = rng.permutation(len(self._batches))
        sizes = np.cumsum([self._batches[i].n for i in order])
        take = int(np.searchsorted(sizes, n)) + 1
        return CalibrationSet([self._batches[i] for i in sorted(order[:take])])

    @property
    def units(self) -> int:
        """Samples, or batches where these are drawn whole: what `split` can part."""
        return self.n if self.joined else len(self._batches)

    def split(
        self, share: float, rng: np.random.Generator
    ) -> tuple[CalibrationSet, CalibrationSet]:
        """(rest, share): disjoint samples, at least one on each side.

        Raises `CalibrationError` if there are not two samples (or two batches) to part.
        """
        units = self.units
        if units < 2:
            raise CalibrationError(
                f"{units} calibration {'sample' if self.joined else 'batch'} cannot be split to "
                "hold some out; give more data, a holdout set, or accept.holdout = 0"
            )
        held = min(max(1, round(share * units)), units - 1)
        order = rng.permutation(units)
        if self.joined:
            return self.subset(np.sort(order[held:])), self.subset(np.sort(order[:held]))
        pick = [[self._batches[i] for i in sorted(part)] for part in (order[held:], order[:held])]
        return CalibrationSet(pick[0]), CalibrationSet(pick[1])


def tree_map(f: Callable[..., Tensor], tree: Tree, *others: Tree) -> Tree:
    """``f`` of every tensor of the tree, with those at the same places of ``others``."""
    if isinstance(tree, Tensor):
        return f(tree, *others)
    if isinstance(tree, Mapping):
        return {k: tree_map(f, v, *(o[k] for o in others)) for k, v in tree.items()}
    if isinstance(tree, (tuple, list)):
        return tuple(tree_map(f, *v) for v in zip(tree, *others, strict=True))
    return tree


def tree_leaves(tree: Tree) -> list[Tensor]:
    if isinstance(tree, Tensor):
        return [tree]
    if isinstance(tree, Mapping):
        tree = list(tree.values())
    return [t for v in tree for t in tree_leaves(v)] if isinstance(tree, (tuple, list)) else []


def _length(tree: Tree) -> int:
    leaves = [t for t in tree_leaves(tree) if t.ndim]
    return leaves[0].shape[0] if leaves else 0


def _is_bare_pair(items: list[Any]) -> bool:
    """Whether these are inputs and their targets: two batches of inputs are of one kind."""
    if len(items) != 2 or not all(isinstance(t, (Tensor, np.ndarray)) and t.ndim for t in items):
        return False
    a, b = (torch.as_tensor(t) for t in items)
    same_kind = a.ndim == b.ndim and a.is_floating_point() == b.is_floating_point()
    return a.shape[0] == b.shape[0] and not same_kind


def _as_batch(i: int, item: Any, device: torch.device) -> Batch:
    pair = isinstance(item, (tuple, list)) and len(item) == 2
    inputs, targets = item if pair else (item, None)
    if isinstance(inputs, np.ndarray):
        inputs = torch.from_numpy(inputs)
    if isinstance(targets, np.ndarray):
        targets = torch.from_numpy(targets)
    leaves = tree_leaves(inputs)
    if not leaves:
        raise CalibrationError(
            f"batch {i} holds no tensor (a {type(item).__name__}); give tensors, tuples or dicts "
            "of tensors, or pairs (inputs, targets)"
        )
    for t in leaves + tree_leaves(targets):
        if t.device != device:
            raise CalibrationError(
                f"batch {i} is on {t.device}, the model is on {device}; move one to the other"
            )
        if t.is_floating_point() and not bool(torch.isfinite(t).all()):
            raise CalibrationError(f"batch {i} holds NaN or infinite values; clean the data first")
    if targets is not None and _length(targets) not in (0, _length(inputs)):
        raise CalibrationError(
            f"batch {i} has {_length(inputs)} inputs but {_length(targets)} targets"
        )
    return Batch(inputs, targets)


def tree_signature(tree: Tree) -> Any:
    """Names, shapes without the samples, and dtypes: trees of one signature can be joined."""
    if isinstance(tree, Tensor):
        return (tuple(tree.shape[1:]), tree.dtype)
    if isinstance(tree, Mapping):
        return tuple((k, tree_signature(v)) for k, v in tree.items())
    if isinstance(tree, (tuple, list)):
        return tuple(tree_signature(v) for v in tree)
    return (type(tree), repr(tree))


def _join(batches: list[Batch]) -> list[Batch]:
    first = (tree_signature(batches[0].inputs), tree_signature(batches[0].targets))
    leaves = tree_leaves(batches[0].inputs) + tree_leaves(batches[0].targets)
    even = all(t.ndim and t.shape[0] == batches[0].n for t in leaves)
    same = all((tree_signature(b.inputs), tree_signature(b.targets)) == first for b in batches[1:])
    if len(batches) == 1 or not (even and same):
        return batches

    def cat(trees: list[Tree]) -> Tree:
        head = trees[0]
        if isinstance(head, Tensor):
            return torch.cat(trees)
        if isinstance(head, Mapping):
            return {k: cat([t[k] for t in trees]) for k in head}
        if isinstance(head, (tuple, list)):
            return tuple(cat([t[i] for t in trees]) for i in range(len(head)))
        return head

    return [Batch(cat([b.inputs for b in batches]), cat([b.targets for b in batches]))]
