"""The loss as a quadratic of the units that stay, from gradients of gates.

With x = 1 for a unit that stays and d = x - 1, the loss changes by about ``g'd + d'Hd / 2``, where
u_n,i is sample n's gradient with respect to the gate of unit i, g its mean and ``H = E[u u']`` over
labels that the model draws from its own outputs: the Gauss-Newton matrix in the gates (Martens
2014, arXiv 1412.1193). Entries off the diagonal have both signs: units that do one another's work,
and units that cancel.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from optiprune.curvature import CalibrationSet, SampleGradients, gate_gradients, linearise_loss
from optiprune.curvature.loss_pass import sample_seed
from optiprune.curvature.losses import LossFunction
from optiprune.structure import Structure

from .readers import Readers

__all__ = ["UnitQuadratic", "unit_fisher"]

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class UnitQuadratic:
    """``offset`` of every group's units in one vector, and the quadratic of all of them.

    Attributes
    ----------
    starts : (groups + 1,) units of group g are ``starts[g]`` to ``starts[g + 1]``
    H : (units, units) float64, positive semidefinite
    g : (units,) float64
    """

    starts: npt.NDArray[np.int64]
    H: FloatArray
    g: FloatArray


def starts_of(structure: Structure) -> npt.NDArray[np.int64]:
    return np.cumsum([0, *(g.size for g in structure.groups)]).astype(np.int64)


def unit_fisher(
    model: nn.Module,
    structure: Structure,
    readers: Readers,
    data: CalibrationSet,
    loss: LossFunction,
    seed: np.random.SeedSequence,
    *,
    own: bool,
    chunk: int = 256,
) -> UnitQuadratic:
    """The quadratic at the model's own weights.

    Parameters
    ----------
    loss : with labels to draw (`optiprune.curvature.losses.has_true_fisher`)
    own : the targets are the model's own outputs: the gradient is 0
    chunk : samples at once

    Raises
    ------
    CalibrationError
        As `optiprune.curvature.linearise_loss`.
    """
    starts = starts_of(structure)
    layers = [r.layer for r in readers.readers]
    tensors = dict(model.named_parameters())
    weights = {layer.parameter: tensors[layer.parameter].detach() for layer in layers}
    n = int(starts[-1])
    H, g = np.zeros((n, n)), np.zeros(n)
    places = [(r, starts[r.group] + r.unit, r.group >= 0) for r in readers.readers]

    def gates(gradients: SampleGradients) -> FloatArray:
        u = np.zeros((gradients.n, n))
        for reader, unit, real in places:
            weight = weights[reader.layer.parameter]
            by_channel = gate_gradients(gradients, reader.layer.name, weight).cpu().numpy()
            np.add.at(u.T, unit[real], by_channel.T[real])
        return u

    batches = list(data.batches(chunk))
    for batch, child in zip(batches, seed.spawn(len(batches)), strict=True):
        part = CalibrationSet([batch])
        drawn = linearise_loss(
            model, layers, weights, part, loss, sampled_labels=sample_seed(child), chunk=chunk
        )
        u = gates(drawn)
        H += u.T @ u / data.n
        if not own:
            given = linearise_loss(model, layers, weights, part, loss, chunk=chunk)
            g += gates(given).sum(0) / data.n
    return UnitQuadratic(starts, H, g)
