"""Gradients of single samples with respect to gates on a layer's input channels.

A gate multiplies a channel of the input by 1; removing the channel turns it to 0. Its gradient for
sample n is ``sum of theta * dl_n/dtheta`` over the weights theta that read the channel, which is
``sum over places of a * (W' delta)``: input times the gradient that comes back through this layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .sample_gradients import Call, SampleGradients

__all__ = ["gate_gradients"]


def gate_gradients(gradients: SampleGradients, name: str, weight: Tensor) -> Tensor:
    """Gradients with respect to the gates of one layer.

    Parameters
    ----------
    weight : of the layer, in the parameter's shape, where ``gradients`` were taken

    Returns
    -------
    (samples, input channels) float64; a sample that did not reach the layer has zeros.
    """
    layer = gradients.layers[name]
    channels = layer.shape[1] * layer.groups
    out = []
    for size, calls in gradients.chunks(name):
        total = torch.zeros(size, channels, dtype=torch.float64, device=weight.device)
        for call in calls:
            total += _gates(call, weight, size).to(torch.float64)
        out.append(total)
    return torch.cat(out) * gradients.scale


def _gates(call: Call, weight: Tensor, samples: int) -> Tensor:
    weight = weight.float()
    if not isinstance(call.module, nn.Conv2d):
        return (call.inputs * (call.grads @ weight)).sum(1)
    m = call.module
    with torch.enable_grad():
        x = call.inputs.detach().requires_grad_(True)
        y = F.conv2d(x, weight, None, m.stride, m.padding, m.dilation, m.groups)
        (back,) = torch.autograd.grad(y, x, call.grads)
    products = (call.inputs * back).sum((2, 3))
    return products.reshape(samples, -1, products.shape[1]).sum(1)
