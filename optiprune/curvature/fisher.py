"""The loss over calibration data, its gradient, and the gradients of single samples.

The data go through the model in chunks. Each chunk counts by the number of terms in its loss, so
that the results are those of one call over all data, whatever the chunks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from .data import CalibrationError, CalibrationSet
from .layers import PrunableLayer
from .loss_pass import LossChunk, gradients, leaves_of, loss_chunks, require_terms
from .losses import LossFunction
from .recording import LayerCall, OutputRecorder
from .runner import untouched
from .sample_axis import AxisFinder, as_batch
from .sample_gradients import Call, SampleGradients, gather_calls

__all__ = ["SampleGradients", "linearise_loss", "mean_gradients", "mean_loss"]

# weights of a layer whose per-sample gradients are summed up as a check, and the error allowed in
# the sum, of the terms that cancel in it (above the rounding of tf32 and of autocast)
_CHECKED = 32
_CHECK_ERROR = 2e-3


def linearise_loss(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
    loss: LossFunction,
    *,
    dense_targets: Mapping[str, Tensor] | None = None,
    sampled_labels: int | None = None,
    chunk: int = 256,
) -> SampleGradients:
    """One forward and backward pass over ``data``, with the gradient of every sample.

    Parameters
    ----------
    weights : parameter name -> tensor of the parameter's shape; the point of linearisation
    loss : (outputs, targets) -> mean, as described at `losses.loss_terms`
    dense_targets : weights of the dense model whose outputs replace the targets (KL), or None
    sampled_labels : seed for labels drawn from the model's outputs (true Fisher, for the losses of
        `has_true_fisher`), or None. ``G'G / N`` of the gradients G is then the estimate of the
        curvature; their mean is that of no loss and of no use.
    chunk : samples sent through the model at once

    Raises
    ------
    CalibrationError
        The loss or a gradient is NaN or infinite; no label counts; a layer took no part in the
        loss, uses its weight otherwise than by calling the module, or has an input in which the
        samples cannot be told apart.
    """
    out = SampleGradients(layers)
    leaves = leaves_of(weights)
    generator = None if sampled_labels is None else torch.Generator().manual_seed(sampled_labels)
    sums = _GradientSums(layers)
    axes = AxisFinder(model, layers, leaves)
    total, terms = 0.0, 0
    with untouched(model), torch.enable_grad(), OutputRecorder(layers) as recorder:
        for c in loss_chunks(model, leaves, data, loss, dense_targets, chunk, generator):
            uses = recorder.take()
            calls: dict[str, list[Call]] = {}
            if c.terms:
                wanted = [*sums.edges(leaves), *(use.output for use in uses)]
                grads = gradients(c.value, wanted)
                calls = _calls(uses, grads[len(layers) :], axes, c)
                recorder.take()  # finding the axes may have run the model
                _check_sums(layers, calls, grads[: len(layers)], c, known=sums.by_layer)
                sums.add(grads[: len(layers)], c.terms)
                total += float(c.value.detach()) * c.terms
                terms += c.terms
            out.add(c.batch.n, calls)
    out.mean = sums.finish(terms)
    out.loss = total / terms
    # a call has the gradient of the sum over the terms of its chunk: the loss is the mean over all
    # terms, and what is squared and averaged over the samples is a covariance for sampled labels
    share = out.n / terms
    out.scale = share if generator is None else share**0.5
    return out


def mean_gradients(
    model: nn.Module,
    layers: Sequence[PrunableLayer],
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
    loss: LossFunction,
    *,
    dense_targets: Mapping[str, Tensor] | None = None,
    chunk: int = 256,
) -> dict[str, Tensor]:
    """Gradient of the loss over ``data`` alone: layer name -> float32, shape (rows, cols).

    Parameters and errors as for `linearise_loss`; nothing is kept of a chunk once it is done.
    """
    leaves = leaves_of(weights)
    sums = _GradientSums(layers)
    terms = 0
    with untouched(model), torch.enable_grad():
        for c in loss_chunks(model, leaves, data, loss, dense_targets, chunk):
            if c.terms:
                sums.add(gradients(c.value, sums.edges(leaves)), c.terms)
                terms += c.terms
    return sums.finish(terms)


@torch.no_grad()
def mean_loss(
    model: nn.Module,
    weights: Mapping[str, Tensor],
    data: CalibrationSet,
    loss: LossFunction,
    *,
    dense_targets: Mapping[str, Tensor] | None = None,
    chunk: int = 256,
) -> float:
    """Mean loss over ``data`` at the given weights, accumulated in float64.

    Raises `CalibrationError` if it is NaN or infinite, or if no label counts.
    """
    total, terms = 0.0, 0
    with untouched(model):
        for c in loss_chunks(model, weights, data, loss, dense_targets, chunk):
            if c.terms:
                total += float(c.value) * c.terms
                terms += c.terms
    require_terms(terms)
    return total / terms


class _GradientSums:
    """Sums of the layers' gradients over chunks, each weighted by its number of terms."""

    def __init__(self, layers: Sequence[PrunableLayer]) -> None:
        self._layers = layers
        self.by_layer: dict[str, Tensor] = {}

    def edges(self, leaves: Mapping[str, Tensor]) -> list[GradientEdge]:
        """Where the gradients of the layers' weights arrive, one a layer."""
        return [get_gradient_edge(leaves[layer.parameter]) for layer in self._layers]

    def add(self, grads: Sequence[Tensor | None], terms: int) -> None:
        for layer, g in zip(self._layers, grads, strict=True):
            if g is None:
                continue
            flat = g.reshape(layer.rows, layer.cols).float()
            if layer.name in self.by_layer:
                self.by_layer[layer.name].add_(flat, alpha=terms)
            else:
                self.by_layer[layer.name] = flat * terms

    def finish(self, terms: int) -> dict[str, Tensor]:
        """Layer name -> gradient of the mean over all terms."""
        require_terms(terms)
        for layer in self._layers:
            if layer.name not in self.by_layer:
                raise CalibrationError(
                    f"layer '{layer.name}' took no part in the loss on the calibration data; "
                    "exclude it"
                )
            mean = self.by_layer[layer.name].div_(terms)
            if not bool(torch.isfinite(mean).all()):
                raise CalibrationError(
                    f"the gradient of layer '{layer.name}' holds NaN or infinite values"
                )
        return self.by_layer


def _calls(
    uses: Sequence[LayerCall], grads: Sequence[Tensor | None], axes: AxisFinder, chunk: LossChunk
) -> dict[str, list[Call]]:
    """Layer name -> its calls, parted by sample, with the gradient of the sum over the terms."""
    n = chunk.batch.n
    taken = [(use, d) for use, d in zip(uses, grads, strict=True) if d is not None]
    inputs = {use.key: (use.module, as_batch(use.module, use.inputs)) for use, _ in taken}
    found = axes.axes(chunk.batch, inputs)
    calls: dict[str, list[Call]] = {}
    for use, d in taken:
        axis = found[use.key]
        x = axis.split(inputs[use.key][1], n).float()
        d = axis.split(as_batch(use.module, d), n).float() * chunk.terms
        if isinstance(use.module, nn.Conv2d):
            call = Call(use.module, x.flatten(0, 1), d.flatten(0, 1))
        else:
            call = Call(use.module, x.reshape(n, -1, x.shape[-1]), d.reshape(n, -1, d.shape[-1]))
        calls.setdefault(use.layer, []).append(call)
    return calls


def _check_sums(
    layers: Sequence[PrunableLayer],
    calls: Mapping[str, Sequence[Call]],
    grads: Sequence[Tensor | None],
    chunk: LossChunk,
    *,
    known: Mapping[str, Tensor],
) -> None:
    """Where a layer has its first gradient: the samples' gradients must sum up to it.

    They do not where the model uses the weight past the module, or where a subclass or a hook makes
    more of the output than the product with the weight.
    """
    for layer, g in zip(layers, grads, strict=True):
        if g is None or layer.name in known:
            continue
        at = torch.linspace(0, layer.numel - 1, min(_CHECKED, layer.numel), dtype=torch.float64)
        index = at.long().to(g.device)
        mine = calls.get(layer.name, [])
        samples = torch.zeros(chunk.batch.n, len(index), device=g.device)
        sizes = torch.zeros_like(samples)
        gather_calls(mine, layer, index, samples)
        absolute = [Call(c.module, c.inputs.abs(), c.grads.abs()) for c in mine]
        gather_calls(absolute, layer, index, sizes)
        off = (samples.sum(0) - g.reshape(-1)[index].float() * chunk.terms).abs().sum()
        bound = max(_CHECK_ERROR, 2 * torch.finfo(g.dtype).eps) * float(sizes.sum())
        if float(off) > bound if mine else bool(g.any()):
            raise CalibrationError(
                f"layer '{layer.name}': the gradients of single samples do not sum up to that of "
                "the loss; the model uses its weight without calling the module (as "
                "nn.MultiheadAttention does), or its output is changed by a hook; exclude it"
            )
