"""The models of the quality benchmark by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from .classification import fashion_mnist_model
from .digits import digits_model
from .efficientnet import efficientnet_model
from .language import smollm2_model
from .quality import QualityModel

__all__ = ["QUALITY_MODELS", "quality_model"]

_fashion = partial(partial, fashion_mnist_model)

QUALITY_MODELS: dict[str, Callable[[], QualityModel]] = {
    "lenet-300-100": _fashion(
        "lenet-300-100",
        "784-300-100-10 network on Fashion-MNIST, 266,610 parameters",
        samples=20_000,
        heldout=10_000,
        minutes=0.3,
    ),
    "mlp-784-512-512-10": _fashion(
        "mlp-784-512-512-10",
        "784-512-512-10 network on Fashion-MNIST, 669,706 parameters",
        samples=20_000,
        heldout=10_000,
        minutes=0.5,
    ),
    "cnn-32-64-fc128": _fashion(
        "cnn-32-64-fc128",
        "two convolutions and two linear layers on Fashion-MNIST, 421,834 parameters",
        samples=4_000,
        heldout=2_000,
        minutes=2,
    ),
    "resnet20": _fashion(
        "resnet20",
        "ResNet20 on Fashion-MNIST, 272,186 parameters",
        samples=4_000,
        heldout=2_000,
        minutes=5,
    ),
    "smollm2-135m": smollm2_model,
    "efficientnet-lite0": efficientnet_model,
    "digits": digits_model,
}


def quality_model(name: str) -> QualityModel:
    """The model of that name. Raises ValueError, which lists the names, for another."""
    if name not in QUALITY_MODELS:
        raise ValueError(f"no model {name!r}; there are: {', '.join(QUALITY_MODELS)}")
    return QUALITY_MODELS[name]()
