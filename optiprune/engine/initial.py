"""The first mask: the best-scoring weights of every budget."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.config import Config
from optiprune.curvature import CalibrationSet
from optiprune.curvature.gram import input_norms, wanda_scores

from .budgets import Budgets
from .errors import BudgetError
from .largest import largest
from .objective import GlobalLoss
from .state import WeightState

__all__ = ["best_per_group", "first_scores", "nonzero_mask", "require_connected", "scores_by_norms"]

# positions sorted at once
_SPAN = 1 << 22
# positions in a group, on average, from which on each is searched by itself
_LARGE = 4096


def first_scores(
    model: nn.Module,
    state: WeightState,
    train: CalibrationSet,
    config: Config,
    objective: GlobalLoss | None,
    seed: np.random.SeedSequence,
) -> npt.NDArray[np.floating]:
    """Score of every weight for the first mask, shape (P,); higher stays.

    ``objective`` is needed for the method 'gradient' alone.
    """
    method, curvature = config.initial.method, config.curvature
    if method == "auto":
        # measured with refit too: 85.9 and 70.2 % accuracy at sparsities of 90 and 95 %, where
        # magnitude gives 85.6 and 60.5 %
        method = "wanda" if config.prune.objective == "reconstruction" else "magnitude"
    if method == "random":
        return np.random.default_rng(seed).random(state.n)
    if method == "wanda":
        norms = input_norms(
            model, state.layers, train, chunk=curvature.chunk, per_input=curvature.positions
        )
        return scores_by_norms(state, norms)
    if method == "gradient":
        assert objective is not None
        gradients = objective.gradients(state.dense_weights(), train)
        flat = torch.cat([gradients[layer.name].reshape(-1) for layer in state.layers])
        return np.abs(flat.cpu().numpy() * state.dense)
    return np.abs(state.dense)


def scores_by_norms(state: WeightState, norms: Mapping[str, Tensor]) -> npt.NDArray[np.floating]:
    """`wanda_scores` of every weight, shape (P,); magnitudes in the layers without ``norms``."""
    dense, score = state.dense_weights(), np.abs(state.dense)
    for i, layer in enumerate(state.layers):
        if layer.name in norms:
            part = wanda_scores(layer, dense[layer.parameter], norms[layer.name])
            score[state.span(i)] = part.reshape(-1).cpu().numpy()
    return score


def best_per_group(
    score: npt.NDArray[np.floating],
    groups: npt.NDArray[np.integer],
    kept: npt.NDArray[np.int64],
) -> npt.NDArray[np.bool_]:
    """Keep the ``kept[g]`` highest scores of each group g; ties go to the lower position.

    Parameters
    ----------
    score : (P,), groups : (P,), kept : (n_groups,)

    Memory beside the result follows the largest group where groups follow one another, as those of
    layers, rows and patterns do.
    """
    mask = np.zeros(score.shape[0], dtype=bool)
    for part in _whole_groups(groups):
        first = int(groups[part].min()) if groups[part].size else 0
        own = groups[part] - first
        sizes = np.bincount(own)
        counts = kept[first : first + len(sizes)]
        ends = np.cumsum(sizes)
        if len(sizes) * _LARGE <= ends[-1] and _ascending(own):
            for start, end, k in zip(ends - sizes, ends, counts, strict=True):
                mask[part][start:end] = largest(score[part][start:end], int(k))
            continue
        order = np.lexsort((-score[part], own))
        rank = np.arange(own.shape[0]) - np.repeat(ends - sizes, sizes)
        mask[part][order] = rank < np.repeat(counts, sizes)
    return mask


def _whole_groups(groups: npt.NDArray[np.integer]) -> Iterator[slice]:
    """Spans of positions that hold groups whole, of `_SPAN` positions or one group each."""
    n = groups.shape[0]
    ascending = all(_ascending(groups[i : i + _SPAN]) for i in range(0, n, _SPAN - 1))
    at = 0
    while at < n:
        end = min(at + _SPAN, n) if ascending else n
        if end < n:
            last = groups[end - 1]
            begin = at + int(np.searchsorted(groups[at:end], last, side="left"))
            # the last group goes to the next span, unless it is all of this one
            end = begin if begin > at else at + int(np.searchsorted(groups[at:], last, "right"))
        yield slice(at, end)
        at = end


def _ascending(groups: npt.NDArray[np.integer]) -> bool:
    return bool((groups[1:] >= groups[:-1]).all())


def nonzero_mask(
    state: WeightState, budgets: Budgets, score: npt.NDArray[np.floating] | None = None
) -> npt.NDArray[np.bool_]:
    """Keep what is non-zero. Raises `BudgetError` if that is more than a budget allows.

    ``score`` (P,): what counts as non-zero is positive there, in place of the weights; it also
    says what fills up a budget.
    """
    mask = state.dense != 0 if score is None else score > 0
    counts = np.bincount(budgets.groups[mask], minlength=len(budgets.kept))
    over = np.flatnonzero(counts > budgets.kept)
    if over.size:
        g = int(over[0])
        layer = state.layers[int(state.layer_of(np.flatnonzero(budgets.groups == g)[:1])[0])]
        raise BudgetError(
            f"initial = 'nonzero': {counts[g]} weights are non-zero where the budget (first layer "
            f"'{layer.name}') keeps {budgets.kept[g]}; lower the sparsity or start from magnitude"
        )
    # a budget that is not used up is filled with zeros: their mask costs nothing and can be moved
    score = mask.astype(np.float64) if score is None else score
    return best_per_group(score, budgets.groups, budgets.kept)


def require_connected(state: WeightState, mask: npt.NDArray[np.bool_], floor: int) -> None:
    """Raise `BudgetError` if a layer keeps fewer than ``floor`` weights."""
    for i, layer in enumerate(state.layers):
        count = int(np.count_nonzero(mask[state.span(i)]))
        if count < floor:
            raise BudgetError(
                f"the first mask keeps {count} of the {layer.numel} weights of layer "
                f"'{layer.name}'; lower the sparsity, use scope = 'layer', or exclude the layer"
            )
