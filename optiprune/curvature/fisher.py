"""Gradients of every sample, kept as activations and output gradients, gathered where asked.

For a linear layer the gradient of sample n with respect to weight (r, c) is
``sum_t delta[n, t, r] a[n, t, c]`` (t runs over tokens or positions), so that the per-sample
gradients of a batch of weights cost O(N T b) and no per-sample gradient of a layer is ever formed.
A convolution is the same with shifted views of its padded input.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .data import CalibrationError, CalibrationSet
from .layers import PrunableLayer
from .losses import LossFunction, logits_of, sampled_label_loss
from .runner import run_model, untouched

__all__ = ["SampleGradients", "linearise_loss", "mean_loss"]


@dataclass(slots=True)
class _Use:
    """One call of one module for one chunk: what its weight gradient is made of."""

    module: nn.Module
    inputs: Tensor
    grads: Tensor


class SampleGradients:
    """Per-sample gradients of the loss at one point, for all layers, from one backward pass.

    Attributes
    ----------
    n : number of samples N
    loss : mean loss at this point, float
    mean : layer name -> mean gradient, float32, shape (rows, cols)
    """

    def __init__(self, layers: Sequence[PrunableLayer]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.n = 0
        self.loss = 0.0
        self.mean: dict[str, Tensor] = {}
        self._chunks: list[dict[str, list[_Use]]] = []
        self._sizes: list[int] = []

    def diagonal(self, name: str) -> Tensor:
        """``E[g^2]`` of every weight of a layer, float32, shape (rows, cols)."""
        layer = self.layers[name]
        device = self.mean[name].device
        total = torch.zeros(layer.rows, layer.cols, device=device)
        for uses, size in zip(self._chunks, self._sizes, strict=True):
            parts = uses.get(name, [])
            flat = len(parts) == 1 and isinstance(parts[0].module, nn.Linear)
            if flat and _tokens(parts[0].grads, size).shape[1] == 1:
                d = parts[0].grads.reshape(size, -1)
                a = parts[0].inputs.reshape(size, -1)
                total += (d * d).T @ (a * a)
                continue
            # several positions a sample: form the gradients of a few samples at a time
            step = max(1, 2**24 // max(1, layer.numel))
            for i in range(0, size, step):
                g = torch.zeros(min(step, size - i), layer.rows, layer.cols, device=device)
                for use in parts:
                    g += _dense_gradients(use, size, slice(i, i + step), layer)
                total += (g * g).sum(0)
        return total / self.n

    def gather(self, name: str, index: Tensor) -> Tensor:
        """Per-sample gradients of chosen weights.

        Parameters
        ----------
        name : layer name
        index : int64, shape (b,): flat positions ``row * cols + col``

        Returns
        -------
        Tensor, float32, shape (N, b)
        """
        layer = self.layers[name]
        rows, cols = index // layer.cols, index % layer.cols
        out = torch.zeros(self.n, index.numel(), device=index.device)
        start = 0
        for uses, size in zip(self._chunks, self._sizes, strict=True):
            for use in uses.get(name, []):
                if isinstance(use.module, nn.Conv2d):
                    out[start : start + size] += _gather_conv(use, layer, rows, cols)
                else:
                    d, a = _tokens(use.grads, size), _tokens(use.inputs, size)
                    step = max(1, 2**24 // (size * d.shape[1]))
                    for i in range(0, index.numel(), step):
                        s = slice(i, i + step)
                        out[start : start + size, s] += (d[:, :, rows[s]] * a[:, :, cols[s]]).sum(1)
            start += size
        return out


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
    """One forward and backward pass over ``data`` at the given weights.

    Parameters
    ----------
    weights : parameter name -> tensor of the parameter's shape; the point of linearisation
    loss : (outputs, targets) -> mean over the samples
    dense_targets : weights of the dense model whose outputs replace the targets (KL), or None
    sampled_labels : seed for labels drawn from the model's outputs (true Fisher, for the losses of
        `has_true_fisher`), or None
    chunk : samples sent through the model at once

    Raises
    ------
    CalibrationError
        The loss or a gradient is NaN or infinite, or a layer took no part in the forward pass.
    """
    out = SampleGradients(layers)
    by_module = {id(m): layer.name for layer in layers for m in layer.modules}
    leaves = {k: v.detach().clone().requires_grad_(True) for k, v in weights.items()}
    generator = torch.Generator().manual_seed(sampled_labels or 0)
    calls: dict[str, list[_Use]] = {}
    open_uses: list[tuple[nn.Module, str, Tensor, Tensor]] = []

    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        x = args[0] if args else kwargs["input"]
        open_uses.append((module, by_module[id(module)], x.detach(), output))

    total = 0.0
    sums: dict[str, Tensor] = {}
    with untouched(model), torch.enable_grad():
        handles = [
            m.register_forward_hook(hook, with_kwargs=True)
            for layer in layers
            for m in layer.modules
        ]
        try:
            for batch in data.batches(chunk):
                targets = batch.targets
                if dense_targets is not None:
                    with torch.no_grad():
                        targets = logits_of(run_model(model, dense_targets, batch.inputs))
                open_uses.clear()
                output = run_model(model, leaves, batch.inputs)
                if sampled_labels is not None:
                    value = sampled_label_loss(output, loss, batch.n, generator)
                else:
                    value = loss(output, targets)
                _require_finite_loss(value)
                outputs = [o for _, _, _, o in open_uses]
                params = [leaves[layer.parameter] for layer in layers]
                grads = torch.autograd.grad(value, [*params, *outputs], allow_unused=True)
                for layer, g in zip(layers, grads[: len(params)], strict=True):
                    if g is not None:
                        flat = g.reshape(layer.rows, layer.cols).float() * batch.n
                        sums[layer.name] = sums[layer.name] + flat if layer.name in sums else flat
                calls = {}
                for (module, name, x, _), d in zip(open_uses, grads[len(params) :], strict=True):
                    if d is not None:
                        # the loss is a mean over the batch: undo it, to have each sample's own
                        use = _Use(module, x.float(), d.float() * batch.n)
                        calls.setdefault(name, []).append(use)
                out._chunks.append(calls)
                out._sizes.append(batch.n)
                out.n += batch.n
                total += float(value.detach()) * batch.n
        finally:
            for h in handles:
                h.remove()
    out.loss = total / out.n
    for layer in layers:
        if layer.name not in sums:
            raise CalibrationError(
                f"layer '{layer.name}' took no part in the loss on the calibration data; exclude it"
            )
        g = sums[layer.name] / out.n
        if not bool(torch.isfinite(g).all()):
            raise CalibrationError(
                f"the gradient of layer '{layer.name}' holds NaN or infinite values"
            )
        out.mean[layer.name] = g
    return out


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

    Raises `CalibrationError` if it is NaN or infinite.
    """
    total, n = 0.0, 0
    with untouched(model):
        for batch in data.batches(chunk):
            targets = batch.targets
            if dense_targets is not None:
                targets = logits_of(run_model(model, dense_targets, batch.inputs))
            value = loss(run_model(model, weights, batch.inputs), targets)
            _require_finite_loss(value)
            total += float(value) * batch.n
            n += batch.n
    return total / n


def _require_finite_loss(value: Tensor) -> None:
    if not isinstance(value, Tensor) or value.ndim:
        shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise CalibrationError(
            f"the loss must be a scalar tensor (a mean over samples), got {shape}"
        )
    if not bool(torch.isfinite(value)):
        raise CalibrationError(
            f"the loss is {float(value)} on the calibration data: activations overflow or the data "
            "hold bad values"
        )


def _tokens(t: Tensor, size: int) -> Tensor:
    """(N, ..., f) -> (N, T, f); a layer fed with samples and tokens already merged is parted."""
    return t.reshape(size, -1, t.shape[-1])


def _conv_geometry(m: nn.Conv2d, x: Tensor) -> Tensor:
    """The input, zero-padded as the convolution pads it."""
    if isinstance(m.padding, str):
        if m.padding == "valid":
            return x
        pads: list[int] = []
        for k, d in zip(reversed(m.kernel_size), reversed(m.dilation), strict=True):
            whole = d * (k - 1)
            pads += [whole // 2, whole - whole // 2]
        return F.pad(x, pads)
    ph, pw = m.padding
    return F.pad(x, (pw, pw, ph, ph))


def _gather_conv(use: _Use, layer: PrunableLayer, rows: Tensor, cols: Tensor) -> Tensor:
    m = use.module
    assert isinstance(m, nn.Conv2d)
    x = use.inputs if use.inputs.ndim == 4 else use.inputs[None]
    d = use.grads if use.grads.ndim == 4 else use.grads[None]
    x = _conv_geometry(m, x)
    n, _, height, width = d.shape
    kh, kw = m.kernel_size
    per_group = m.in_channels // m.groups
    channel = cols // (kh * kw) + (rows // (layer.rows // m.groups)) * per_group
    tap = cols % (kh * kw)
    out = torch.zeros(n, rows.numel(), device=d.device)
    for t in torch.unique(tap).tolist():
        where = (tap == t).nonzero()[:, 0]
        top, left = (t // kw) * m.dilation[0], (t % kw) * m.dilation[1]
        view = x[
            :,
            :,
            top : top + (height - 1) * m.stride[0] + 1 : m.stride[0],
            left : left + (width - 1) * m.stride[1] + 1 : m.stride[1],
        ]
        step = max(1, 2**24 // (n * height * width))
        for i in range(0, where.numel(), step):
            s = where[i : i + step]
            out[:, s] = (d[:, rows[s]] * view[:, channel[s]]).sum((2, 3))
    return out


def _dense_gradients(use: _Use, size: int, part: slice, layer: PrunableLayer) -> Tensor:
    """Per-sample gradients of a whole layer for a few samples, shape (n, rows, cols)."""
    m = use.module
    if isinstance(m, nn.Conv2d):
        x = _conv_geometry(m, use.inputs[part])
        d = use.grads[part]
        patches = F.unfold(x, m.kernel_size, dilation=m.dilation, stride=m.stride)
        n = x.shape[0]
        a = patches.reshape(n, m.groups, layer.cols, -1)
        dd = d.reshape(n, m.groups, layer.rows // m.groups, -1)
        return torch.einsum("ngrl,ngcl->ngrc", dd, a).reshape(n, layer.rows, layer.cols)
    d, a = _tokens(use.grads, size)[part], _tokens(use.inputs, size)[part]
    return torch.einsum("ntr,ntc->nrc", d, a)


def sample_seed(seed: np.random.SeedSequence) -> int:
    """A 63-bit seed for a torch generator."""
    return int(seed.generate_state(1, np.uint64)[0] >> np.uint64(1))
