"""What a permutation did, and how it is taken back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from .coupling import Group
from .reorder import Order, reordered, write

__all__ = ["PermutationReport", "PermutedGroup"]


@dataclass(frozen=True, slots=True)
class PermutedGroup:
    """A group of coupled channels, and what its order is worth.

    Attributes
    ----------
    channels : how many
    producers : layers whose output rows are these channels
    consumers : layers that read them; all have their columns reordered
    carriers : modules in between with parameters for each channel
    before, after : share of the squared Wanda scores that the pattern keeps in the dense and in the
        new order, the mean over the consumers that take part
    """

    channels: int
    producers: tuple[str, ...]
    consumers: tuple[str, ...]
    carriers: tuple[str, ...]
    before: float
    after: float


class PermutationReport:
    """What `permute_channels` returns.

    Attributes
    ----------
    groups : a `PermutedGroup` for each group that was searched; the order of one in which nothing
        better was found (``after`` equals ``before``) is as it was
    left_out : layer that takes part -> why its columns are in their old order
    change : largest change of an output on the samples compared, in units of the largest output
    """

    def __init__(
        self,
        model: nn.Module,
        orders: Sequence[tuple[Group, Order]],
        groups: tuple[PermutedGroup, ...],
        left_out: Mapping[str, str],
        change: float,
    ) -> None:
        self.groups = groups
        self.left_out = dict(left_out)
        self.change = change
        self._model = model
        self._orders: list[tuple[Group, Order]] | None = list(orders)

    def undo(self) -> None:
        """Put all channels back in their old order.

        What was done to the weights in between moves with them: pruned weights stay zero, and no
        longer keep to N:M. Weights that were not changed are as before, bit for bit. Masks that
        still lie on the model are to be reverted first: they do not move.

        Raises
        ------
        RuntimeError
            The second time; or the shape of a layer has changed: nothing is written then.
        """
        if self._orders is None:
            raise RuntimeError("this permutation was undone before")
        back = [(group, np.argsort(order)) for group, order in self._orders]
        try:
            new = reordered(self._model, back)
        except (RuntimeError, IndexError, AttributeError) as e:
            raise RuntimeError(
                f"the model is not the one that was permuted any more, nothing was written: {e}"
            ) from e
        write(self._model, new)
        self._orders = None

    def __repr__(self) -> str:
        return f"PermutationReport({len(self.groups)} groups, {len(self.left_out)} left out)"
