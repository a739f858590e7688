"""Convolutional networks without branches of their own kind: VGG, SqueezeNet, C3D, DCGAN, TCN."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["C3D", "DCGAN", "TCN", "VGG16", "SqueezeNet"]


class VGG16(nn.Module):
    """Simonyan and Zisserman (2015), configuration D with batch norm.

    The two hidden layers of the classifier have 1024 neurons instead of 4096, for memory.
    """

    def __init__(self, classes: int = 1000, hidden: int = 1024, divide: int = 1) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = 3
        for width, depth in ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)):
            for _ in range(depth):
                conv = nn.Conv2d(before, width // divide, 3, padding=1)
                layers += [conv, nn.BatchNorm2d(width // divide), nn.ReLU(inplace=True)]
                before = width // divide
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(7)
        self.classifier = nn.Sequential(
            nn.Linear(before * 49, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(),
            nn.Linear(hidden, classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(torch.flatten(self.pool(self.features(x)), 1))


class Fire(nn.Module):
    """Squeeze, then two kinds of expansion side by side."""

    def __init__(self, before: int, squeeze: int, expand: int) -> None:
        super().__init__()
        self.squeeze = nn.Conv2d(before, squeeze, 1)
        self.left = nn.Conv2d(squeeze, expand, 1)
        self.right = nn.Conv2d(squeeze, expand, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)


class SqueezeNet(nn.Module):
    """Iandola et al. (2016), version 1.1, with the simple bypass."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 3, stride=2)
        sizes = ((64, 16, 64), (128, 16, 64), (128, 32, 128), (256, 32, 128))
        more = ((256, 48, 192), (384, 48, 192), (384, 64, 256), (512, 64, 256))
        self.fires = nn.ModuleList(Fire(*s) for s in (*sizes, *more))
        self.head = nn.Conv2d(512, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, ceil_mode=True)
        for i, fire in enumerate(self.fires):
            x = x + fire(x) if i % 2 else fire(x)
            if i in (1, 3):
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
        return F.relu(self.head(F.dropout(x, 0.5, self.training))).mean((2, 3))


class C3D(nn.Module):
    """Tran et al. (2015): 3-D convolutions on clips, a flatten, two hidden layers."""

    def __init__(self, classes: int = 100, base: int = 16) -> None:
        super().__init__()
        widths = (base, 2 * base, 4 * base, 8 * base)
        self.convs = nn.ModuleList(
            nn.Conv3d(a, b, 3, padding=1) for a, b in zip((3, *widths), widths, strict=False)
        )
        self.norms = nn.ModuleList(nn.BatchNorm3d(w) for w in widths)
        self.fc6 = nn.Linear(widths[-1] * 2 * 3 * 3, 128)
        self.fc7 = nn.Linear(128, 128)
        self.fc8 = nn.Linear(128, classes)

    def forward(self, x: Tensor) -> Tensor:
        for i, (conv, norm) in enumerate(zip(self.convs, self.norms, strict=True)):
            x = F.relu(norm(conv(x)))
            x = F.max_pool3d(x, (1, 2, 2) if i == 0 else 2)
        x = F.relu(self.fc6(x.flatten(1)))
        return self.fc8(F.relu(self.fc7(x)))


class DCGAN(nn.Module):
    """The generator of Radford, Metz and Chintala (2016): transposed convolutions from a vector."""

    def __init__(self, latent: int = 64, base: int = 64) -> None:
        super().__init__()
        widths = (latent, 8 * base, 4 * base, 2 * base, base)
        layers: list[nn.Module] = []
        for i, (a, b) in enumerate(pairwise(widths)):
            up = nn.ConvTranspose2d(a, b, 4, 2 if i else 1, 1 if i else 0, bias=False)
            layers += [up, nn.BatchNorm2d(b), nn.ReLU()]
        self.main = nn.Sequential(
            *layers, nn.ConvTranspose2d(base, 3, 4, 2, 1, bias=False), nn.Tanh()
        )

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z[:, :, None, None])


class Causal(nn.Module):
    """Two dilated causal convolutions and a residual, cut to length after padding."""

    def __init__(self, before: int, after: int, dilation: int) -> None:
        super().__init__()
        self.reach = 2 * dilation
        self.first = nn.Conv1d(before, after, 3, padding=self.reach, dilation=dilation)
        self.second = nn.Conv1d(after, after, 3, padding=self.reach, dilation=dilation)
        self.down = nn.Conv1d(before, after, 1) if before != after else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.first(x)[:, :, : -self.reach])
        y = F.relu(self.second(y)[:, :, : -self.reach])
        return F.relu(y + (x if self.down is None else self.down(x)))


class TCN(nn.Module):
    """Bai, Kolter and Koltun (2018): a temporal convolutional network, without weight norm."""

    def __init__(self, channels: int = 8, width: int = 64, levels: int = 4) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Causal(width if i else channels, width, 2**i) for i in range(levels))
        )
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.blocks(x)[:, :, -1])
