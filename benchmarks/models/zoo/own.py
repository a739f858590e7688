"""Networks that are defined here, at full size."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from . import branching, images, plain, sequences
from .entry import Entry, Example, tokens
from .entry import images as pictures

__all__ = ["ENTRIES"]


def _entry(kind: Callable[..., nn.Module], inputs: Callable[[], Tensor], **sizes: Any) -> Entry:
    source = (kind.__doc__ or "").split(":")[0].split("(")[0]
    return Entry(lambda: Example(kind(**sizes), (inputs(),)), source.strip() or kind.__name__)


ENTRIES: dict[str, Entry] = {
    "vgg-16-bn": _entry(plain.VGG16, pictures),
    "squeezenet": _entry(plain.SqueezeNet, pictures),
    "googlenet": _entry(branching.GoogLeNet, pictures),
    "densenet-121": _entry(branching.DenseNet, pictures),
    "resnext-50-32x4d": _entry(branching.ResNeXt, pictures),
    "res2net": _entry(branching.Res2Net, pictures),
    "shufflenet-v2": _entry(branching.ShuffleNetV2, pictures),
    "mobilenet-v3-large": _entry(images.MobileNetV3, pictures),
    "csp-detector": _entry(branching.CSPNet, lambda: pictures(128)),
    "unet-transposed": _entry(images.UNet, lambda: pictures(96)),
    "unet-bilinear": _entry(images.UNet, lambda: pictures(96), bilinear=True),
    "super-resolution": _entry(images.SuperResolution, lambda: pictures(32)),
    "dcgan-generator": _entry(plain.DCGAN, lambda: torch.randn(2, 64)),
    "c3d": _entry(plain.C3D, lambda: torch.randn(2, 3, 16, 48, 48)),
    "tcn": _entry(plain.TCN, lambda: torch.randn(2, 8, 64)),
    "mlp-mixer": _entry(images.MLPMixer, lambda: pictures(64)),
    "lstm": _entry(sequences.LSTMClassifier, tokens),
    "torch-encoder": _entry(sequences.TorchEncoder, lambda: torch.randn(2, 12, 24)),
}
