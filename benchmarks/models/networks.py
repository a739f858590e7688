"""The networks that the benchmarks prune, with initial weights that a seed alone decides."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable

import torch
from torch import nn

from .resnet import ResNet20

__all__ = ["NETWORKS", "build", "takes_flat_input"]


def mlp(*widths: int) -> nn.Sequential:
    """Fully connected ReLU network with layers fc1, fc2, ... of the given widths."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    last = len(widths) - 1
    for i in range(1, last + 1):
        layers[f"fc{i}"] = nn.Linear(widths[i - 1], widths[i])
        if i < last:
            layers[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(layers)


def cnn_32_64_128() -> nn.Sequential:
    """Two 3x3 convolutions (32 and 64 channels), each batch norm, ReLU and 2x2 max-pooling, then
    128 hidden units: 421,834 parameters on (1, 28, 28) images."""
    return nn.Sequential(
        OrderedDict(
            conv1=nn.Conv2d(1, 32, 3, padding=1),
            bn1=nn.BatchNorm2d(32),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),
            conv2=nn.Conv2d(32, 64, 3, padding=1),
            bn2=nn.BatchNorm2d(64),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),
            flatten=nn.Flatten(),
            fc1=nn.Linear(64 * 7 * 7, 128),
            relu3=nn.ReLU(),
            fc2=nn.Linear(128, 10),
        )
    )


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "mlp-784-512-512-10": lambda: mlp(784, 512, 512, 10),
    "lenet-300-100": lambda: mlp(784, 300, 100, 10),
    "cnn-32-64-fc128": cnn_32_64_128,
    "resnet20": ResNet20,
}


def takes_flat_input(name: str) -> bool:
    """Whether the network reads rows of 784 pixels rather than (1, 28, 28) images."""
    return name not in ("cnn-32-64-fc128", "resnet20")


def build(name: str, seed: int) -> nn.Module:
    """The untrained network of that name. Raises ValueError for an unknown one.

    Weights are drawn as torch does by default (uniform in +-1/sqrt(fan_in)), but from a generator
    of their own: torch's global random state is neither read nor changed.
    """
    if name not in NETWORKS:
        raise ValueError(f"no network {name!r}; known: {', '.join(NETWORKS)}")
    # Constructors draw from the global generator; on the meta device they draw nothing.
    with torch.device("meta"):
        model = NETWORKS[name]()
    model = model.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            bound = 1.0 / math.sqrt(layer.weight[0].numel())
            nn.init.uniform_(layer.weight, -bound, bound, generator=generator)
            if layer.bias is not None:
                nn.init.uniform_(layer.bias, -bound, bound, generator=generator)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.reset_running_stats()
            nn.init.ones_(layer.weight)
            nn.init.zeros_(layer.bias)
    return model
