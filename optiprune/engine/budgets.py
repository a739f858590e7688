"""How many weights may be kept, and where: one group of weights for every budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from optiprune.config import Config, parse_pattern
from optiprune.curvature.layers import PrunableLayer, sparsity_by_pattern
from optiprune.patterns import Block

from .errors import BudgetError
from .state import WeightState

__all__ = ["Budgets", "block_of", "make_budgets", "pattern_of", "scope_of"]


@dataclass(frozen=True, slots=True)
class Budgets:
    """``groups`` (P,) int32: budget of each weight; ``sizes`` and ``kept`` (n_groups,) int64."""

    groups: npt.NDArray[np.int32]
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
    pattern = parse_pattern(config.prune.pattern) if own is None else None
    return pattern if isinstance(pattern, tuple) else None


def block_of(layer: PrunableLayer, config: Config) -> Block | None:
    """The tiles that the layer's mask keeps to, also with a sparsity of its own; None if none."""
    pattern = parse_pattern(config.prune.pattern)
    return pattern if isinstance(pattern, Block) else None


def scope_of(config: Config) -> str:
    """'global', 'layer' or 'row': `prune.scope` with 'auto' resolved."""
    scope = config.prune.scope
    if scope == "auto":
        return "global" if config.prune.objective == "global" else "layer"
    return scope


def make_budgets(
    state: WeightState, config: Config, counts: Mapping[str, int] | None = None
) -> Budgets:
    """Budgets for a config: pattern first, then scope, then layers with a sparsity of their own.

    Parameters
    ----------
    counts : layer name -> weights to keep (multiples of the rows with scope 'row'), from an
        allocation; in place of the common sparsity, for the layers without one of their own

    Raises
    ------
    BudgetError
        A budget rounds to fewer than ``layers.min_kept`` weights in a layer, or an N:M pattern does
        not divide a layer's rows.
    """
    prune = config.prune
    scope = scope_of(config)
    groups = np.empty(state.n, dtype=np.int32)
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
        block = block_of(layer, config)
        if block is not None:
            in_layer = _add_tiles(layer, block, density, scope, span, groups, sizes, kept)
            _require_kept(in_layer, density, layer, scope, config.layers.min_kept)
            continue
        if counts is not None and layer.name in counts:
            density = counts[layer.name] / layer.numel
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
        _require_kept(in_layer, density, layer, scope, config.layers.min_kept)
    if shared >= 0:
        kept[shared] = round((1.0 - prune.sparsity) * sizes[shared])
        if counts is not None:
            kept[shared] = sum(counts.values())
        if kept[shared] < config.layers.min_kept:
            raise BudgetError(
                f"a sparsity of {prune.sparsity:g} keeps {kept[shared]} of {sizes[shared]} "
                "weights; lower it"
            )
    return Budgets(groups, np.array(sizes, dtype=np.int64), np.array(kept, dtype=np.int64))


def _add_tiles(
    layer: PrunableLayer,
    block: Block,
    density: float,
    scope: str,
    span: slice,
    groups: npt.NDArray[np.int32],
    sizes: list[int],
    kept: list[int],
) -> int:
    """Budgets in whole tiles, for the layer or for each row of tiles; weights kept in the layer.

    Raises `BudgetError` if the tiles do not fill the layer, or the budget is of the whole model.
    """
    if scope == "global":
        raise BudgetError(
            f"pattern '{block}' holds a sparsity within layers: scope = 'global' cannot be had; "
            "use 'layer' or 'row'"
        )
    if (layer.rows // layer.groups) % block.rows or layer.cols % block.cols:
        raise BudgetError(
            f"layer '{layer.name}' has {layer.rows} rows in {layer.groups} groups and {layer.cols} "
            f"weights in a row, which tiles of {block.rows} x {block.cols} do not fill: pattern "
            f"'{block}' does not fit; exclude the layer"
        )
    bands = layer.rows // block.rows if scope == "row" else 1
    tiles = layer.numel // block.numel // bands
    base = len(sizes)
    groups[span] = base + np.arange(layer.numel) // (layer.numel // bands)
    sizes += [tiles * block.numel] * bands
    kept += [round(density * tiles) * block.numel] * bands
    return sum(kept[base:])


def _require_kept(
    in_layer: int, density: float, layer: PrunableLayer, scope: str, least: int
) -> None:
    if in_layer < least:
        raise BudgetError(
            f"a density of {density:g} rounds to {in_layer} of the {layer.numel} weights of "
            f"layer '{layer.name}' (scope '{scope}'); lower the sparsity, give this layer its "
            "own under layers.sparsity, or exclude it"
        )
