"""Measures what it costs to prune one layer at a time, all others dense.

The layer is pruned to each level by the cheapest method: the best scores of the first mask,
re-fitted if the run re-fits. Its inputs are the dense model's, so that one Gram matrix serves all
levels. The model is run with other weights (`optiprune.curvature.runner`) and never written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.curvature.data import CalibrationSet
from optiprune.curvature.fisher import mean_loss
from optiprune.curvature.gram import LayerGram
from optiprune.curvature.layers import PrunableLayer
from optiprune.curvature.losses import LossFunction
from optiprune.curvature.stages import LayerWalk
from optiprune.refit import refit_rows

__all__ = ["CheapPruning", "layer_error_damages", "loss_damages"]

_ALL = slice(None)

Damages = dict[str, npt.NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class CheapPruning:
    """Prunes single layers of a model.

    Attributes
    ----------
    scores : layer name -> (numel,) scores of the first mask, higher stays
    dense : parameter name -> dense weights of all layers
    counts : layer name -> numbers of weights to keep, the levels
    train : samples for the fits
    refit : whether kept weights are re-fitted
    by_row : whether every row keeps equally many; counts are multiples of the rows then
    damping : of the refit
    chunk : samples sent through the model at once
    positions : for each input of a layer, at most; None: all
    """

    model: nn.Module
    layers: Sequence[PrunableLayer]
    scores: Mapping[str, npt.NDArray[np.floating]]
    dense: Mapping[str, Tensor]
    counts: Mapping[str, Sequence[int]]
    train: CalibrationSet
    refit: bool
    by_row: bool
    damping: float
    chunk: int
    positions: int | None = None

    def levels(
        self,
        layer: PrunableLayer,
        gram: LayerGram | None,
        rows: npt.NDArray[np.int64] | slice = _ALL,
    ) -> Iterator[Tensor]:
        """The layer's weights at each of its counts, (rows, cols) float64, zero where pruned.

        Parameters
        ----------
        gram : of the layer's inputs on the calibration data; needed for a refit alone
        rows : which of its rows; the counts are of the whole layer all the same
        """
        shape = (layer.rows, layer.cols)
        w = self.dense[layer.parameter].detach().to(torch.float64).reshape(shape)[rows]
        rank = _ranks(self.scores[layer.name].reshape(shape), self.by_row)[rows]
        refit = self._refit(gram, w) if self.refit else None
        near: Tensor | None = None
        for count in self.counts[layer.name]:
            kept = count // layer.rows if self.by_row else count
            mask = torch.from_numpy(rank < kept).to(w.device)
            masked = torch.where(mask, w, 0.0)
            # the level before is where the next one's fit begins
            near = masked if refit is None else refit(mask, masked, near)
            yield near

    def _refit(
        self, gram: LayerGram | None, w: Tensor
    ) -> Callable[[Tensor, Tensor, Tensor | None], Tensor]:
        """What re-fits these rows for any of their masks; their targets are made once."""
        assert gram is not None
        H, b, energy = gram.H, gram.cross(w), gram.target_energy(w)

        def refit(mask: Tensor, masked: Tensor, near: Tensor | None) -> Tensor:
            return refit_rows(H, b, energy, mask, masked, self.damping, near).values

        return refit

    def grams(
        self, sets: Sequence[CalibrationSet]
    ) -> Iterator[tuple[PrunableLayer, tuple[LayerGram, ...]]]:
        """Each layer with its Gram matrices on each of the sets, in the order in which they run."""
        walk = LayerWalk(
            self.model, self.layers, self.dense, sets, self.chunk, "dense", self.positions
        )
        for stage in walk:
            for layer in stage.layers:
                yield layer, tuple(found[layer.name] for found in stage.grams)


def _ranks(score: npt.NDArray[np.floating], by_row: bool) -> npt.NDArray[np.int64]:
    """Place of every score in its row, or in the whole matrix, 0 the highest; ties by position."""
    flat = score if by_row else score.reshape(1, -1)
    order = np.argsort(-flat, axis=1, kind="stable")
    rank = np.empty_like(order)
    np.put_along_axis(rank, order, np.arange(flat.shape[1])[None, :], axis=1)
    return rank.reshape(score.shape)


def layer_error_damages(
    pruning: CheapPruning,
    held: CalibrationSet | None,
    most_rows: int | None = None,
    seed: np.random.SeedSequence | None = None,
    curvature: Mapping[str, Tensor] | None = None,
) -> Damages:
    """Squared error of the layer's output over the mean square of the dense output (without bias).

    Parameters
    ----------
    held : samples to judge on; None: those that the fits are from
    curvature : layer name -> (rows,), see `output_curvature`: damages are the rises of the loss
        that it predicts, in place of relative errors
    most_rows : rows of a layer that stand for all, drawn by ``seed`` (0 if it is None); None for
        all. Layers of several convolution groups are measured whole.

    Returns
    -------
    layer name -> (levels,) float64 >= 0; 0 for a layer whose dense output is zero.

    Raises `CalibrationError` as `collect_grams`.
    """
    sets = [pruning.train] if held is None else [pruning.train, held]
    out: Damages = {}
    draws = np.random.default_rng(seed or np.random.SeedSequence(0))
    for layer, grams in pruning.grams(sets):
        judge = grams[-1]
        few: npt.NDArray[np.int64] | slice = _ALL
        if most_rows is not None and most_rows < layer.rows and layer.groups == 1:
            few = np.sort(draws.choice(layer.rows, most_rows, replace=False))
        w = pruning.dense[layer.parameter].detach().to(torch.float64)
        rows = w.reshape(layer.rows, layer.cols)[few]
        if curvature is None:
            energy = float(judge.target_energy(rows).sum())
            each = torch.full((len(rows),), 1.0 / energy if energy > 0 else 0.0, dtype=rows.dtype)
        else:
            each = 0.5 * layer.rows / len(rows) * curvature[layer.name][few]
        each = each.to(rows.device)
        levels = pruning.levels(layer, grams[0], few)
        out[layer.name] = np.array([float(each @ judge.error(v, rows)) for v in levels])
    return out


def loss_damages(
    pruning: CheapPruning,
    held: CalibrationSet,
    loss: LossFunction,
    progress: Callable[[str], None] | None = None,
) -> Damages:
    """Rise of the model's loss on ``held`` with the one layer pruned, in units of the loss.

    Parameters
    ----------
    held : with the targets that ``loss`` needs
    progress : called with the name of each layer that is done

    Returns
    -------
    layer name -> (levels,) float64, below 0 where pruning happened to help.

    Raises
    ------
    CalibrationError
        As `collect_grams` and `mean_loss`: a loss that is NaN or infinite at some level, ...
    """
    before = mean_loss(pruning.model, pruning.dense, held, loss, chunk=pruning.chunk)
    found: Iterator[tuple[PrunableLayer, tuple[LayerGram | None, ...]]]
    found = ((layer, (None,)) for layer in pruning.layers)
    if pruning.refit:
        found = pruning.grams([pruning.train])
    out: Damages = {}
    for layer, (gram,) in found:
        like, rises = pruning.dense[layer.parameter], []
        for values in pruning.levels(layer, gram):
            weight = values.reshape(layer.shape).to(like.dtype)
            weights = {**pruning.dense, layer.parameter: weight}
            now = mean_loss(pruning.model, weights, held, loss, chunk=pruning.chunk)
            rises.append(now - before)
        out[layer.name] = np.array(rises)
        if progress is not None:
            progress(layer.name)
    return out
