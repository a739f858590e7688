"""How many weights may be kept, and where: one group of weights for every budget."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.config import Config, parse_pattern
from optiprune.curvature.layers import PrunableLayer, sparsity_by_pattern

from .errors import BudgetError
from .state import WeightState

__all__ = ["Budgets", "make_budgets", "pattern_of"]


@dataclass(frozen=True, slots=True)
class Budgets:
    """``groups`` (P,) int64: budget of each weight; ``sizes`` and ``kept`` (n_groups,) int64."""

    groups: npt.NDArray[np.int64]
    sizes: npt.NDArray[np.int64]
    kept: npt.NDArray[np.int64]

    @property
    def density(self) -> float:
        return float(self.kept.sum()) / float(self.sizes.sum())

    def at_share(self, share: float) -> npt.NDArray[np.int64]:
        """Budgets once ``share`` of the final pruning is done: all kept at 0, ``kept`` at 1."""
        return self.sizes - np.rint((self.sizes - self.kept) * share).astype(np.int64)


def pattern_of(layer: PrunableLayer, config: Config) -> tuple[int, int] | None:
    """(N, M) that the layer's mask keeps to; None for a layer with a sparsity of its own."""
    own = sparsity_by_pattern(layer, config.layers.sparsity)
    return parse_pattern(config.prune.pattern) if own is None else None


def make_budgets(state: WeightState, config: Config) -> Budgets:
    """Budgets for a config: pattern first, then scope, then layers with a sparsity of their own.

    Raises
    ------
    BudgetError
        A budget rounds to fewer than ``layers.min_kept`` weights in a layer, or an N:M pattern does
        not divide a layer's rows.
    """
    prune = config.prune
    scope = prune.scope
    if scope == "auto":
        scope = "global" if prune.objective == "global" else "layer"
    groups = np.empty(state.n, dtype=np.int64)
    sizes: list[int] = []
    kept: list[int] = []
    shared = -1  # the group that layers without a budget of their own share
    for i, layer in enumerate(state.layers):
        own = sparsity_by_pattern(layer, config.layers.sparsity)
        span, base = state.span(i), len(sizes)
        pattern = pattern_of(layer, config)
        if pattern is not None:
            n, m = pattern
            if layer.cols % m:
                raise BudgetError(
                    f"layer '{layer.name}' has {layer.cols} weights in a row, which {m} does not "
                    f"divide: pattern {prune.pattern} does not fit; exclude the layer"
                )
            count = layer.numel // m
            groups[span] = base + np.arange(layer.numel) // m
            sizes += [m] * count
            kept += [n] * count
            continue
        density = 1.0 - (prune.sparsity if own is None else own)
        if scope == "row":
            per_row = round(density * layer.cols)
            groups[span] = base + np.arange(layer.numel) // layer.cols
            sizes += [layer.cols] * layer.rows
            kept += [per_row] * layer.rows
            in_layer = per_row * layer.rows
        elif scope == "layer" or own is not None:
            in_layer = round(density * layer.numel)
            groups[span] = base
            sizes.append(layer.numel)
            kept.append(in_layer)
        else:
            if shared < 0:
                shared = base
                sizes.append(0)
                kept.append(0)
            groups[span] = shared
            sizes[shared] += layer.numel
            continue
        if in_layer < config.layers.min_kept:
            raise BudgetError(
                f"a density of {density:g} rounds to {in_layer} of the {layer.numel} weights of "
                f"layer '{layer.name}' (scope '{scope}'); lower the sparsity, give this layer its "
                "own under layers.sparsity, or exclude it"
            )
    if shared >= 0:
        kept[shared] = round((1.0 - prune.sparsity) * sizes[shared])
        if kept[shared] < config.layers.min_kept:
            raise BudgetError(
                f"a sparsity of {prune.sparsity:g} keeps {kept[shared]} of {sizes[shared]} "
                "weights; lower it"
            )
    return Budgets(groups, np.array(sizes, dtype=np.int64), np.array(kept, dtype=np.int64))
