"""Gradients of every sample, kept as activations and output gradients, gathered where asked.

For a linear layer the gradient of sample n with respect to weight (r, c) is
``sum_t delta[n, t, r] a[n, t, c]`` (t runs over tokens or positions), so that the per-sample
gradients of a batch of weights cost O(N T b) and no per-sample gradient of a layer is ever formed.
A convolution is the same with shifted views of its padded input.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import PrunableLayer

__all__ = ["Call", "SampleGradients", "gather_calls"]

# elements of a product that is formed at once: 64 MiB
_PIECE = 1 << 24


@dataclass(frozen=True, slots=True)
class Call:
    """One call of one module for one chunk: what its weight gradient is made of.

    Attributes
    ----------
    inputs, grads : float32, input and gradient of the output. Linear: (n, T, features). Conv2d:
        (n * T, channels, height, width), the T images of a sample one after the other.
    """

    module: nn.Module
    inputs: Tensor
    grads: Tensor


class SampleGradients:
    """Per-sample gradients of the loss at one point, for all layers, from one backward pass.

    Their mean over the samples is the gradient of the loss over all data. A sample with more terms
    of the loss (labels that are not ignored) than others has a larger gradient.

    Attributes
    ----------
    n : number of samples N
    loss : mean loss at this point, float
    mean : layer name -> mean gradient, float32, shape (rows, cols)
    scale : what the gradients of the calls are multiplied by, float
    """

    def __init__(self, layers: Sequence[PrunableLayer]) -> None:
        self.layers = {layer.name: layer for layer in layers}
        self.n = 0
        self.loss = 0.0
        self.mean: dict[str, Tensor] = {}
        self.scale = 1.0
        self._chunks: list[Mapping[str, Sequence[Call]]] = []
        self._sizes: list[int] = []

    def add(self, size: int, calls: Mapping[str, Sequence[Call]]) -> None:
        """The next ``size`` samples: layer name -> its calls. A layer that is not named has 0."""
        self._chunks.append(calls)
        self._sizes.append(size)
        self.n += size

    def chunks(self, name: str) -> Iterator[tuple[int, Sequence[Call]]]:
        """For every chunk its samples and the calls of a layer."""
        for chunk, size in zip(self._chunks, self._sizes, strict=True):
            yield size, chunk.get(name, [])

    def diagonal(self, name: str) -> Tensor:
        """``E[g^2]`` of every weight of a layer, float32, shape (rows, cols)."""
        layer = self.layers[name]
        device = self.mean[name].device
        total = torch.zeros(layer.rows, layer.cols, device=device)
        for size, calls in self.chunks(name):
            if len(calls) == 1 and calls[0].grads.ndim == 3 and calls[0].grads.shape[1] == 1:
                d, a = calls[0].grads[:, 0], calls[0].inputs[:, 0]
                total += (d * d).T @ (a * a)
                continue
            # several positions a sample: form the gradients of a few samples at a time
            step = max(1, _PIECE // max(1, layer.numel))
            for i in range(0, size, step) if calls else ():
                g = torch.zeros(min(step, size - i), layer.rows, layer.cols, device=device)
                for call in calls:
                    g += _dense_gradients(call, size, slice(i, i + step), layer)
                total += (g * g).sum(0)
        return total * (self.scale**2 / self.n)

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
        out = torch.zeros(self.n, index.numel(), device=index.device)
        start = 0
        for size, calls in self.chunks(name):
            gather_calls(calls, layer, index, out[start : start + size])
            start += size
        return out if self.scale == 1.0 else out.mul_(self.scale)

    def project(self, name: str, direction: Tensor) -> Tensor:
        """Every sample's gradient times a direction, float32, shape (N,): as dear as a forward.

        ``direction`` : (rows, cols), of the layer's weights
        """
        layer = self.layers[name]
        out = torch.zeros(self.n, device=self.mean[name].device)
        step = direction.to(torch.float32)
        start = 0
        for size, calls in self.chunks(name):
            for call in calls:
                moved = _moved(call, step, layer)
                out[start : start + size] += (moved * call.grads).reshape(size, -1).sum(1)
            start += size
        return out if self.scale == 1.0 else out.mul_(self.scale)

    def whole(self, name: str) -> Tensor:
        """Per-sample gradients of all weights of a layer, float32, shape (N, rows * cols).

        N times the memory of the layer: for small models and methods that need it, `gather` costs
        no more than the weights it is asked for.
        """
        layer = self.layers[name]
        out = torch.zeros(self.n, layer.numel, device=self.mean[name].device)
        step = max(1, _PIECE // max(1, layer.numel))
        start = 0
        for size, calls in self.chunks(name):
            for call in calls:
                for i in range(0, size, step):
                    part = slice(i, min(i + step, size))
                    rows = _dense_gradients(call, size, part, layer).flatten(1)
                    out[start + part.start : start + part.stop] += rows
            start += size
        return out if self.scale == 1.0 else out.mul_(self.scale)


def gather_calls(calls: Sequence[Call], layer: PrunableLayer, index: Tensor, out: Tensor) -> None:
    """Add the per-sample gradients of chosen weights by these calls to ``out``, (n, b) float32."""
    rows, cols = index // layer.cols, index % layer.cols
    for call in calls:
        if isinstance(call.module, nn.Conv2d):
            _gather_conv(call, call.module, layer, rows, cols, out)
            continue
        d, a = call.grads, call.inputs
        step = max(1, _PIECE // (d.shape[0] * d.shape[1]))
        for i in range(0, index.numel(), step):
            s = slice(i, i + step)
            out[:, s] += (d[:, :, rows[s]] * a[:, :, cols[s]]).sum(1)


def _padded(m: nn.Conv2d, x: Tensor) -> Tensor:
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


def _gather_conv(
    call: Call, m: nn.Conv2d, layer: PrunableLayer, rows: Tensor, cols: Tensor, out: Tensor
) -> None:
    x, d = _padded(m, call.inputs), call.grads
    images, _, height, width = d.shape
    n = out.shape[0]
    kh, kw = m.kernel_size
    per_group = m.in_channels // m.groups
    channel = cols // (kh * kw) + (rows // (layer.rows // m.groups)) * per_group
    tap = cols % (kh * kw)
    for t in torch.unique(tap).tolist():
        where = (tap == t).nonzero()[:, 0]
        top, left = (t // kw) * m.dilation[0], (t % kw) * m.dilation[1]
        view = x[
            :,
            :,
            top : top + (height - 1) * m.stride[0] + 1 : m.stride[0],
            left : left + (width - 1) * m.stride[1] + 1 : m.stride[1],
        ]
        step = max(1, _PIECE // (images * height * width))
        for i in range(0, where.numel(), step):
            s = where[i : i + step]
            by_image = (d[:, rows[s]] * view[:, channel[s]]).sum((2, 3))
            out[:, s] += by_image.reshape(n, images // n, -1).sum(1)


def _moved(call: Call, step: Tensor, layer: PrunableLayer) -> Tensor:
    """What a step of the weights changes in the output of a call."""
    m = call.module
    if not isinstance(m, nn.Conv2d):
        return call.inputs @ step.T
    kernel = step.reshape(layer.rows, -1, *m.kernel_size)
    x = _padded(m, call.inputs)
    return F.conv2d(x, kernel, None, m.stride, 0, m.dilation, m.groups)


def _dense_gradients(call: Call, size: int, part: slice, layer: PrunableLayer) -> Tensor:
    """Per-sample gradients of a whole layer for a few of ``size`` samples, (n, rows, cols)."""
    m = call.module
    if not isinstance(m, nn.Conv2d):
        return torch.einsum("ntr,ntc->nrc", call.grads[part], call.inputs[part])
    each = call.grads.shape[0] // size
    images = slice(part.start * each, part.stop * each)
    x, d = _padded(m, call.inputs[images]), call.grads[images]
    patches = F.unfold(x, m.kernel_size, dilation=m.dilation, stride=m.stride)
    n = x.shape[0] // each
    a = patches.reshape(n, each, m.groups, layer.cols, -1)
    dd = d.reshape(n, each, m.groups, layer.rows // m.groups, -1)
    return torch.einsum("ntgrl,ntgcl->ngrc", dd, a).reshape(n, layer.rows, layer.cols)
