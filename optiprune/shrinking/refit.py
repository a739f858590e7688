"""Weights that read what is left, fitted again so that layers still do their job.

Layer by layer in the order in which they run, on inputs of the smaller model: the rows share one
support, so that one factorisation serves a layer. Where a linear layer has nearly as many inputs as
there are samples, a fit learns these by heart: a fifth of the samples then chooses the damping of
every layer, which pulls to the dense weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet, LayerGram
from optiprune.curvature.gram import pooled
from optiprune.curvature.stages import LayerWalk

from .masking import masked_weights, stays
from .readers import Reader, Readers

__all__ = ["refit_readers"]

_ATTEMPTS = 8
# samples for each input of a linear layer above which a fit is no learning by heart
_PLENTY = 10
_HELD = 0.2
# dampings that held-out samples choose from: powers of ten times the given one
_POWERS = 5


def refit_readers(
    model: nn.Module,
    readers: Readers,
    dense: Mapping[str, Tensor],
    kept: Mapping[int, npt.NDArray[np.bool_]],
    data: CalibrationSet,
    *,
    damping: float,
    seed: np.random.SeedSequence,
    chunk: int = 256,
    per_input: int | None = None,
) -> dict[str, Tensor]:
    """New weights and biases of the layers that lost inputs, or came after such a layer.

    Parameters
    ----------
    dense : parameter name -> dense tensor, of every reader's weight and bias
    kept : group's number -> units that stay
    damping : lambda in mean diagonals of the Gram matrix; raised tenfold while the error would
        rise, and where held-out samples say so
    seed : of the samples that are held out
    per_input : positions for each column of a layer, at most

    Returns
    -------
    parameter name -> tensor, zero where the layer reads units that left.
    """
    by_layer = {r.layer.name: r for r in readers.readers}
    layers = [r.layer for r in readers.readers]
    sets = [data]
    widest = max((x.cols for x in layers if len(x.shape) == 2), default=0)
    if data.n < _PLENTY * widest and data.units > 1:
        sets = list(data.split(_HELD, np.random.default_rng(seed)))
    walk = LayerWalk(model, layers, dense, sets, chunk, per_input=per_input)
    out: dict[str, Tensor] = {}
    walk.weights.update(masked_weights(readers.readers, dense, kept))
    for stage in walk:
        for layer in stage.layers:
            reader = by_layer[layer.name]
            weight = dense[layer.parameter]
            grams = [g[layer.name] for g in stage.grams]
            rows = _fit(reader, weight, stays(reader, kept), grams, damping)
            out[layer.parameter] = rows.to(weight.dtype).reshape(weight.shape)
            walk.weights[layer.parameter] = out[layer.parameter]
    return out


def _fit(
    reader: Reader,
    weight: Tensor,
    left: npt.NDArray[np.bool_],
    grams: Sequence[LayerGram],
    damping: float,
) -> Tensor:
    """Rows (rows, cols) float64, zero off the channels that are left."""
    dense = weight.detach().reshape(reader.layer.rows, reader.layer.cols).double()
    if len(grams) == 1:
        return _rows(reader, dense, left, grams[0], damping)
    fit, held = grams
    errors = {}
    for power in range(_POWERS):
        rows = _rows(reader, dense, left, fit, damping * 10.0**power)
        errors[power] = float(held.error(rows, dense).sum())
    best = min(errors, key=errors.__getitem__)
    return _rows(reader, dense, left, pooled(fit, held), damping * 10.0**best)


def _rows(
    reader: Reader,
    dense: Tensor,
    left: npt.NDArray[np.bool_],
    gram: LayerGram,
    damping: float,
) -> Tensor:
    layer = reader.layer
    target, energy = gram.cross(dense), gram.target_energy(dense)
    out = torch.zeros_like(dense)
    each = layer.rows // layer.groups
    channels = layer.shape[1]
    for k in range(layer.groups):
        rows = slice(k * each, (k + 1) * each)
        of = left[k * channels : (k + 1) * channels].repeat(layer.cols // channels)
        index = torch.from_numpy(np.flatnonzero(of)).to(dense.device)
        if len(index):
            out[rows, index] = _solve(
                gram.H[k], target[rows], energy[rows], dense[rows], index, damping
            )
    return out


def _solve(
    H: Tensor, target: Tensor, energy: Tensor, dense: Tensor, index: Tensor, damping: float
) -> Tensor:
    """The least error on the support, no larger in sum than that of the dense values there."""
    A = H[index][:, index]
    b, v = target[:, index], dense[:, index]
    unit = float(H.diagonal().mean())

    def error(w: Tensor) -> float:
        return float(((w @ A - 2.0 * b) * w).sum() + energy.sum())

    before = error(v)
    for _ in range(_ATTEMPTS):
        ridge = damping * unit if unit > 0 else 1.0
        factor, info = torch.linalg.cholesky_ex(A + ridge * torch.eye(len(index)).to(A))
        if int(info) == 0:
            w = torch.cholesky_solve((b + ridge * v).T, factor).T
            if bool(torch.isfinite(w).all()) and error(w) <= before:
                return w
        damping = max(10.0 * damping, 1e-10)
    return v
