"""Gram matrices of layer inputs: everything that the reconstruction error of a layer depends on.

For output row w of a layer with inputs X_p in the pruned model and X_d in the dense one, dense row
ŵ and n positions, the reconstruction error is exactly

    ||X_p w - X_d ŵ||^2 / n = w'Hw - 2 w'Cŵ + ŵ'Dŵ,
    H = X_p'X_p / n,   C = X_p'X_d / n,   D = X_d'X_d / n.

A bias that both models share cancels. Convolutions are linear in their unfolded patches, one set of
matrices per convolution group. The sum over the rows is the objective of layer-wise pruning
(Hassibi & Stork 1993; Frantar & Alistarh 2023, arXiv:2301.00774); keeping X_p and X_d apart makes
the layer repair what the layers before it broke.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TypeAlias

import torch
from torch import Tensor, nn

from .capture import (
    CallKey,
    Feed,
    require_finite_moments,
    require_run,
    run_with_taps,
)
from .data import CalibrationError, CalibrationSet
from .layers import LayerError, PrunableLayer
from .positions import positions
from .runner import untouched

__all__ = [
    "LayerGram",
    "Passes",
    "collect_grams",
    "input_norms",
    "pooled",
    "sum_grams",
    "sum_squares",
    "wanda_scores",
]

# positions whose products are summed up in float32; fewer than the second are never
_TOGETHER = 2048
_FEW = 256
# of a symmetric product, made together
_ROWS = 192

Passes: TypeAlias = Iterable[tuple[float, Feed, Feed | None]]


@dataclass(frozen=True, slots=True, eq=False)
class LayerGram:
    """Second moments of a layer's inputs, and their means.

    Attributes
    ----------
    H : (groups, cols, cols) float64, ``X_p'X_p / n``, exactly symmetric
    C : (groups, cols, cols) float64, ``X_p'X_d / n``
    D : (groups, cols, cols) float64, ``X_d'X_d / n``, exactly symmetric
        H, C and D are one tensor where pruned and dense inputs were equal throughout.
    n : positions summed over: samples x leading dimensions for Linear, samples x output pixels for
        Conv2d
    mean : (groups, cols) float64, mean of each input of the pruned model over the positions; None
        where the matrices were made from something else than inputs
    """

    H: Tensor
    C: Tensor
    D: Tensor
    n: int
    mean: Tensor | None = None

    @property
    def groups(self) -> int:
        return int(self.H.shape[0])

    @property
    def cols(self) -> int:
        return int(self.H.shape[1])

    @property
    def same_inputs(self) -> bool:
        """Whether the pruned model's inputs were the dense model's."""
        return self.C is self.H

    def norms(self) -> Tensor:
        """Root mean square of each input of the pruned model, (groups, cols) float64."""
        return self.H.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()

    def cross(self, dense_rows: Tensor) -> Tensor:
        """``Cŵ`` for each row, (rows, cols) float64: what the row should correlate to."""
        return self._ungroup(self._group(dense_rows) @ self.C.transpose(1, 2))

    def target_energy(self, dense_rows: Tensor) -> Tensor:
        """``ŵ'Dŵ`` for each row, (rows,) float64: mean square of the dense output without bias."""
        w = self._group(dense_rows)
        return ((w @ self.D) * w).sum(-1).reshape(-1)

    def error(self, weight_rows: Tensor, dense_rows: Tensor) -> Tensor:
        """Reconstruction error of each row, (rows,) float64, in squared output units a position.

        Parameters
        ----------
        weight_rows, dense_rows : (rows, cols)
            Rows as they are now, and the dense ones. Row r belongs to group
            ``r // (rows // groups)``.

        Rounding is cut at 0, so an exact reconstruction gives 0 and never less.

        Raises
        ------
        LayerError
            If the shapes do not fit.
        """
        w, dense = self._group(weight_rows), self._group(dense_rows)
        if w.shape != dense.shape:
            raise LayerError(
                f"{tuple(weight_rows.shape)} weights but {tuple(dense_rows.shape)} dense weights"
            )
        if self.same_inputs:
            d = w - dense  # the difference first: no cancellation between large terms
            total = ((d @ self.H) * d).sum(-1)
        else:
            total = ((w @ self.H) * w).sum(-1) - 2.0 * ((w @ self.C) * dense).sum(-1)
            total = total + ((dense @ self.D) * dense).sum(-1)
        return total.reshape(-1).clamp(min=0.0)

    def _group(self, rows: Tensor) -> Tensor:
        if rows.ndim != 2 or rows.shape[1] != self.cols or rows.shape[0] % self.groups:
            raise LayerError(
                f"rows must have shape (a multiple of {self.groups}, {self.cols}), got "
                f"{tuple(rows.shape)}"
            )
        return rows.to(torch.float64).reshape(self.groups, -1, self.cols)

    def _ungroup(self, rows: Tensor) -> Tensor:
        return rows.reshape(-1, self.cols)


def pooled(a: LayerGram, b: LayerGram) -> LayerGram:
    """The moments of one layer over the positions of both."""
    n = a.n + b.n

    def both(x: Tensor, y: Tensor) -> Tensor:
        return x * (a.n / n) + y * (b.n / n)

    H = both(a.H, b.H)
    mean = None if a.mean is None or b.mean is None else both(a.mean, b.mean)
    if a.same_inputs and b.same_inputs:
        return LayerGram(H, H, H, n, mean)
    return LayerGram(H, both(a.C, b.C), both(a.D, b.D), n, mean)


@dataclass(slots=True)
class _Sums:
    """Running sums of one layer; C and D are made when the inputs first differ."""

    H: Tensor
    mean: Tensor
    C: Tensor | None = None
    D: Tensor | None = None
    n: int = 0

    @classmethod
    def zeros(cls, layer: PrunableLayer, device: torch.device) -> _Sums:
        mean = torch.zeros((layer.groups, layer.cols), dtype=torch.float64, device=device)
        return cls(mean.new_zeros((layer.groups, layer.cols, layer.cols)), mean)

    def add_same(self, x: Tensor) -> None:
        product = _product(x, x)
        if self.C is not None and self.D is not None:
            self.C += product
            self.D += product
        self.H += product
        self.mean += x.sum(1, dtype=torch.float64)
        self.n += x.shape[1]

    def add(self, pruned: Tensor, dense: Tensor) -> None:
        if self.C is None or self.D is None:
            self.C, self.D = self.H.clone(), self.H.clone()
        self.H += _product(pruned, pruned)
        self.C += _product(pruned, dense)
        self.D += _product(dense, dense)
        self.mean += pruned.sum(1, dtype=torch.float64)
        self.n += pruned.shape[1]

    def finish(self, name: str) -> LayerGram:
        for moments in (self.H, self.D):
            if moments is not None:
                require_finite_moments(name, moments.diagonal(dim1=1, dim2=2))
        H, mean = _symmetric(self.H, self.n), self.mean.div_(self.n)
        if self.C is None or self.D is None:
            return LayerGram(H, H, H, self.n, mean)
        return LayerGram(H, self.C.div_(self.n), _symmetric(self.D, self.n), self.n, mean)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """``a'b`` over the positions, (groups, cols, cols) float64.

    Many positions in float32 are multiplied in float32, some at a time, and summed up in float64:
    an entry is off by no more than 1e-6 of the norms of its two inputs. Few positions leave a
    matrix without full rank, of which the last digits matter, and cost little in float64.
    """
    if a.shape[1] < _FEW:
        return a.to(torch.float64).transpose(1, 2) @ b.to(torch.float64)
    total = a.new_zeros((a.shape[0], a.shape[2], b.shape[2]), dtype=torch.float64)
    # of a symmetric matrix, block rows from the diagonal on: up to half of the work
    rows = _ROWS if a is b else a.shape[2]
    for left, right in zip(a.split(_TOGETHER, 1), b.split(_TOGETHER, 1), strict=True):
        for i in range(0, a.shape[2], rows):
            some, rest = left[:, :, i : i + rows], right if a is not b else right[:, :, i:]
            product = some.transpose(1, 2) @ rest
            if not bool(torch.isfinite(product).all()):  # squares may overflow where inputs do not
                product = some.to(torch.float64).transpose(1, 2) @ rest.to(torch.float64)
            total[:, i : i + rows, a.shape[2] - rest.shape[2] :] += product
    if a is b:
        for i in range(rows, a.shape[2], rows):
            total[:, i : i + rows, :i] = total[:, :i, i : i + rows].transpose(1, 2)
    return total


def _symmetric(total: Tensor, n: int) -> Tensor:
    # matrix products are symmetric only up to rounding; solvers want the last bit too
    return (total + total.transpose(1, 2)).mul_(0.5 / n)


def collect_grams(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    dense_weights: Mapping[str, Tensor],
    pruned_weights: Mapping[str, Tensor] | None,
    data: CalibrationSet,
    chunk: int = 256,
    per_input: int | None = None,
) -> dict[str, LayerGram]:
    """Stream the calibration data through the model and sum up the Gram matrices of layer inputs.

    Parameters
    ----------
    layers : whose inputs are wanted; a module that runs several times in a forward, and modules
        that share a weight, add up in one Gram matrix
    dense_weights, pruned_weights : parameter name -> tensor
        Weights of the two models; parameters not named are the model's own. None for the second
        means that the dense model's inputs serve for both (H = C = D).
    chunk : samples sent through the model at once
    per_input : positions of a layer that are taken for each of its columns, at most, evenly spread;
        None takes all

    Returns
    -------
    layer name -> `LayerGram` on the model's device. Sums are float64, products as in the paragraph
    on accuracy below. The model is as it was. Once a forward has run every module exactly once,
    later ones end when every module has run.

    Inputs in float32 that come 256 positions or more at a time are multiplied in float32, at most
    2048 positions together: an entry is off by no more than 1e-6 of the norms of its two inputs.

    Raises
    ------
    CalibrationError
        A layer whose input is NaN or infinite, or that never runs; a model whose pruned form runs
        a layer another number of times than the dense one, so that positions cannot be matched.
    """

    def passes() -> Passes:
        for batch in data.batches(chunk):
            share = batch.n / data.n
            first = partial(run_with_taps, model, layers, dense_weights, batch.inputs)
            if pruned_weights is None:
                yield share, first, None
            else:
                second = partial(run_with_taps, model, layers, pruned_weights, batch.inputs)
                yield share, first, second

    with torch.no_grad(), untouched(model):
        return sum_grams(layers, passes(), per_input)


def sum_grams(
    layers: Sequence[PrunableLayer], passes: Passes, per_input: int | None = None
) -> dict[str, LayerGram]:
    """`collect_grams` of whatever runs the layers: the model, or the part of it that holds them.

    Parameters
    ----------
    passes : for every chunk of data, its share of all samples, what feeds the inputs of the dense
        form to a visitor and, if it is another, what feeds those of the pruned form
    """
    sums: dict[str, _Sums] = {}
    modules = sum(len(layer.modules) for layer in layers)
    once = False
    share = 1.0
    counts: dict[str, int] = {}

    def most(layer: PrunableLayer) -> int | None:
        return _most(layer, per_input, share)

    def total(layer: PrunableLayer, x: Tensor) -> _Sums:
        if layer.name not in sums:
            sums[layer.name] = _Sums.zeros(layer, x.device)
        return sums[layer.name]

    def add_same(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        counts[key[0]] = counts.get(key[0], 0) + 1
        s = total(layer, x)
        for piece in positions(layer, module, x, most(layer)):
            s.add_same(piece)

    store: dict[CallKey, Tensor] = {}

    def keep(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        counts[key[0]] = counts.get(key[0], 0) + 1
        store[key] = x.clone()  # the model may overwrite it in place

    def add_pair(layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor) -> None:
        dense = store.pop(key, None)
        if dense is None or dense.shape != x.shape:
            raise CalibrationError(
                f"layer '{key[0]}' runs otherwise in the pruned model than in the dense one (call "
                f"{key[1] + 1}), so that outputs cannot be matched; use curvature.inputs = 'dense'"
            )
        s = total(layer, x)
        if torch.equal(x, dense):
            for piece in positions(layer, module, x, most(layer)):
                s.add_same(piece)
            return
        both = (positions(layer, module, t, most(layer)) for t in (x, dense))
        for a, b in zip(*both, strict=True):
            s.add(a, b)

    for part, dense, pruned in passes:
        share = part
        dense(add_same if pruned is None else keep, until_all=once)
        if pruned is not None:
            pruned(add_pair, until_all=once)
            if store:
                name, nth = next(iter(store))
                raise CalibrationError(
                    f"layer '{name}' runs {nth + 1} times in the dense model but not in the "
                    "pruned one; use curvature.inputs = 'dense'"
                )
        # a module that runs several times may run another number of times on other data
        once = once or (len(counts) == modules == sum(counts.values()))
        counts = {}
    require_run(layers, sums)
    # in the order of the calls: the first layer with bad inputs is the one to name
    grams = {name: s.finish(name) for name, s in sums.items()}
    return {layer.name: grams[layer.name] for layer in layers}


def _most(layer: PrunableLayer, per_input: int | None, share: float) -> int | None:
    """Positions to take of a chunk that holds ``share`` of the samples."""
    return None if per_input is None else math.ceil(per_input * layer.cols * share)


def input_norms(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    data: CalibrationSet,
    weights: Mapping[str, Tensor] | None = None,
    chunk: int = 256,
    per_input: int | None = None,
) -> dict[str, Tensor]:
    """Root mean square of every input of every layer: the diagonal of H alone, cheaply.

    Returns
    -------
    layer name -> (groups, cols) float64; from as many positions as the Gram matrices of
    `collect_grams` with the same ``per_input``

    Raises `CalibrationError` as `collect_grams`.
    """
    passes = (
        (batch.n / data.n, partial(run_with_taps, model, layers, weights or {}, batch.inputs))
        for batch in data.batches(chunk)
    )
    with torch.no_grad(), untouched(model):
        found = sum_squares(passes, per_input)
    require_run(layers, found)
    return {layer.name: (found[layer.name][0] / found[layer.name][1]).sqrt() for layer in layers}


def sum_squares(
    passes: Iterable[tuple[float, Feed]], per_input: int | None = None
) -> dict[str, tuple[Tensor, int]]:
    """Of what the passes show: layer name -> (sums of squared inputs (groups, cols) float64,
    positions), for the layers that saw any.

    Parameters
    ----------
    passes : for every chunk of data, its share of all samples, and what feeds inputs to a visitor

    Raises
    ------
    CalibrationError
        An input is NaN or infinite.
    """
    squares: dict[str, Tensor] = {}
    n: dict[str, int] = {}
    for share, feed in passes:

        def visit(
            layer: PrunableLayer, module: nn.Module, key: CallKey, x: Tensor, share: float = share
        ) -> None:
            for piece in positions(layer, module, x, _most(layer, per_input, share)):
                part = piece.to(torch.float64).square().sum(1)
                squares[layer.name] = squares.get(layer.name, torch.zeros_like(part)) + part
                n[layer.name] = n.get(layer.name, 0) + piece.shape[1]

        feed(visit)
    for name, total in squares.items():
        require_finite_moments(name, total)
    return {name: (total, n[name]) for name, total in squares.items()}


def wanda_scores(layer: PrunableLayer, weight: Tensor, norms: Tensor) -> Tensor:
    """``|w_ij| * ||x_j||`` for every weight, in the weight's shape, float64.

    ``norms`` are those of `input_norms` or `LayerGram.norms`, (groups, cols). Sun et al. 2023,
    arXiv:2306.11695 (which compares scores within an output row).

    Raises `LayerError` if the shapes do not fit.
    """
    if tuple(weight.shape) != layer.shape or tuple(norms.shape) != (layer.groups, layer.cols):
        raise LayerError(
            f"layer '{layer.name}' has shape {layer.shape} and {layer.groups} x {layer.cols} "
            f"inputs, got a weight of {tuple(weight.shape)} and norms of {tuple(norms.shape)}"
        )
    rows = weight.detach().to(torch.float64).abs().reshape(layer.groups, -1, layer.cols)
    return (rows * norms[:, None, :].to(rows)).reshape(layer.shape)
