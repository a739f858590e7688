"""Convolutional networks that join, split or group channels: DenseNet, Inception, ResNeXt,
Res2Net, ShuffleNetV2, CSP."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["CSPNet", "DenseNet", "GoogLeNet", "Res2Net", "ResNeXt", "ShuffleNetV2"]


def conv_norm(
    before: int, after: int, kernel: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(before, after, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(after),
    )


class DenseLayer(nn.Module):
    def __init__(self, before: int, growth: int) -> None:
        super().__init__()
        self.norm1 = nn.BatchNorm2d(before)
        self.conv1 = nn.Conv2d(before, 4 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(4 * growth)
        self.conv2 = nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.norm2(self.conv1(F.relu(self.norm1(x))))))


class DenseNet(nn.Module):
    """Huang et al. (2017), DenseNet-BC: by default DenseNet-121."""

    def __init__(
        self, blocks: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32, classes: int = 1000
    ) -> None:
        super().__init__()
        width = 2 * growth
        self.stem = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.norm0 = nn.BatchNorm2d(width)
        self.blocks = nn.ModuleList()
        self.transitions = nn.ModuleList()
        for i, depth in enumerate(blocks):
            self.blocks.append(
                nn.ModuleList(DenseLayer(width + j * growth, growth) for j in range(depth))
            )
            width += depth * growth
            if i + 1 < len(blocks):
                self.transitions.append(
                    nn.Sequential(
                        nn.BatchNorm2d(width),
                        nn.ReLU(),
                        nn.Conv2d(width, width // 2, 1, bias=False),
                        nn.AvgPool2d(2),
                    )
                )
                width //= 2
        self.norm = nn.BatchNorm2d(width)
        self.classifier = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm0(self.stem(x))), 3, 2, 1)
        for i, block in enumerate(self.blocks):
            assert isinstance(block, nn.ModuleList)
            for layer in block:
                x = torch.cat([x, layer(x)], 1)
            if i < len(self.transitions):
                x = self.transitions[i](x)
        return self.classifier(F.relu(self.norm(x)).mean((2, 3)))


class Inception(nn.Module):
    """1x1, 3x3, 5x5 and pooled branches, joined."""

    def __init__(self, before: int, a: int, b: tuple[int, int], c: tuple[int, int], d: int) -> None:
        super().__init__()
        self.one = conv_norm(before, a, 1)
        self.three = nn.Sequential(conv_norm(before, b[0], 1), nn.ReLU(), conv_norm(b[0], b[1], 3))
        self.five = nn.Sequential(conv_norm(before, c[0], 1), nn.ReLU(), conv_norm(c[0], c[1], 5))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), conv_norm(before, d, 1))
        self.width = a + b[1] + c[1] + d

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.one(x), self.three(x), self.five(x), self.pooled(x)], 1))


class GoogLeNet(nn.Module):
    """Szegedy et al. (2015), the trunk up to inception 4b, with batch norm."""

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        self.stem = conv_norm(3, 64, 7, 2)
        self.reduce = conv_norm(64, 64, 1)
        self.conv = conv_norm(64, 192, 3)
        self.a3 = Inception(192, 64, (96, 128), (16, 32), 32)
        self.b3 = Inception(256, 128, (128, 192), (32, 96), 64)
        self.a4 = Inception(480, 192, (96, 208), (16, 48), 64)
        self.b4 = Inception(512, 160, (112, 224), (24, 64), 64)
        self.head = nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1)
        x = F.max_pool2d(F.relu(self.conv(F.relu(self.reduce(x)))), 3, 2, 1)
        x = F.max_pool2d(self.b3(self.a3(x)), 3, 2, 1)
        x = F.adaptive_avg_pool2d(self.b4(self.a4(x)), 1)
        return self.head(F.dropout(x.flatten(1), 0.4, self.training))


class Bottleneck(nn.Module):
    """1x1, a grouped or cascaded 3x3, 1x1, and a sum."""

    def __init__(self, before: int, width: int, after: int, stride: int, middle: nn.Module) -> None:
        super().__init__()
        self.first = conv_norm(before, width, 1)
        self.middle = middle
        self.last = conv_norm(width, after, 1)
        same = before == after and stride == 1
        self.down = nn.Identity() if same else conv_norm(before, after, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.middle(F.relu(self.first(x))))
        return F.relu(self.last(y) + self.down(x))


class Cascade(nn.Module):
    """Parts of the channels one after the other, each with the sum of what came before."""

    def __init__(self, width: int, parts: int, stride: int) -> None:
        super().__init__()
        self.parts = parts
        self.convs = nn.ModuleList(
            conv_norm(width // parts, width // parts, 3, stride) for _ in range(parts - 1)
        )
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        pieces = torch.chunk(x, self.parts, 1)
        y = pieces[0]
        out = []
        for i, conv in enumerate(self.convs):
            y = F.relu(conv(y if i == 0 or self.stride > 1 else y + pieces[i]))
            out.append(y)
            y = pieces[i + 1] if self.stride > 1 else y
        last = pieces[-1]
        out.append(F.avg_pool2d(last, 3, self.stride, 1) if self.stride > 1 else last)
        return torch.cat(out, 1)


class _Bottlenecks(nn.Module):
    def __init__(self, depths: tuple[int, ...], classes: int, base: int, stem: int) -> None:
        super().__init__()
        self.stem = conv_norm(3, stem, 7, 2)
        before = stem
        blocks: list[nn.Module] = []
        for i, depth in enumerate(depths):
            width = base * 2**i
            for j in range(depth):
                stride = 2 if i and not j else 1
                middle = self.middle(width, stride)
                blocks.append(Bottleneck(before, width, 2 * width, stride, middle))
                before = 2 * width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(before, classes)

    def middle(self, width: int, stride: int) -> nn.Module:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        x = self.blocks(F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1))
        return self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))


class ResNeXt(_Bottlenecks):
    """Xie et al. (2017): by default ResNeXt-50 32x4d."""

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        classes: int = 1000,
        base: int = 128,
        groups: int = 32,
    ) -> None:
        self.groups = groups
        super().__init__(depths, classes, base, 64)

    def middle(self, width: int, stride: int) -> nn.Module:
        return conv_norm(width, width, 3, stride, self.groups)


class Res2Net(_Bottlenecks):
    """Gao et al. (2021), scale 4."""

    def __init__(
        self, depths: tuple[int, ...] = (2, 2, 2, 2), classes: int = 1000, base: int = 104
    ) -> None:
        super().__init__(depths, classes, base, 64)

    def middle(self, width: int, stride: int) -> nn.Module:
        return Cascade(width, 4, stride)


class ShuffleUnit(nn.Module):
    """One half passes, the other is worked on; both are shuffled. With a stride both are."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        half = after // 2
        inside = before if stride > 1 else half
        self.main = nn.Sequential(
            conv_norm(inside, half, 1),
            nn.ReLU(),
            conv_norm(half, half, 3, stride, half),
            conv_norm(half, half, 1),
            nn.ReLU(),
        )
        self.side = nn.Sequential(
            conv_norm(before, before, 3, stride, before), conv_norm(before, half, 1), nn.ReLU()
        )
        if stride == 1:
            self.side = nn.Sequential()

    def forward(self, x: Tensor) -> Tensor:
        left, right = (x, x) if self.stride > 1 else x.chunk(2, dim=1)
        x = torch.cat([self.side(left), self.main(right)], 1)
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)


class ShuffleNetV2(nn.Module):
    """Ma et al. (2018), width 1.0."""

    def __init__(
        self,
        depths: tuple[int, ...] = (4, 8, 4),
        widths: tuple[int, ...] = (24, 116, 232, 464, 1024),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = conv_norm(3, widths[0], 3, 2)
        units: list[nn.Module] = []
        for i, depth in enumerate(depths):
            units.append(ShuffleUnit(widths[i], widths[i + 1], 2))
            units += [ShuffleUnit(widths[i + 1], widths[i + 1], 1) for _ in range(depth - 1)]
        self.units = nn.Sequential(*units)
        self.last = conv_norm(widths[-2], widths[-1], 1)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.units(F.max_pool2d(F.relu(self.stem(x)), 3, 2, 1))
        return self.head(F.relu(self.last(x)).mean((2, 3)))


class CSPBlock(nn.Module):
    """A convolution cut in halves; one goes through bottlenecks, and all of them are joined."""

    def __init__(self, before: int, after: int, depth: int) -> None:
        super().__init__()
        half = after // 2
        self.enter = conv_norm(before, 2 * half, 1)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv_norm(half, half, 3), nn.SiLU(), conv_norm(half, half, 3), nn.SiLU())
            for _ in range(depth)
        )
        self.leave = conv_norm((2 + depth) * half, after, 1)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(F.silu(self.enter(x)).chunk(2, 1))
        for block in self.blocks:
            parts.append(parts[-1] + block(parts[-1]))
        return F.silu(self.leave(torch.cat(parts, 1)))


class CSPNet(nn.Module):
    """Wang et al. (2020) in the form of one-stage detectors: a CSP trunk, pyramid pooling, an
    upsampled path and two maps of predictions."""

    def __init__(self, outputs: int = 85, base: int = 32) -> None:
        super().__init__()
        w = [base * 2**i for i in range(4)]
        self.stem = conv_norm(3, w[0], 3, 2)
        self.down = nn.ModuleList(conv_norm(a, b, 3, 2) for a, b in pairwise(w))
        self.stages = nn.ModuleList(CSPBlock(x, x, 1 + i) for i, x in enumerate(w[1:]))
        self.squeeze = conv_norm(w[3], w[2], 1)
        self.spread = conv_norm(4 * w[2], w[3], 1)
        self.lateral = CSPBlock(w[3] + w[2], w[2], 1)
        self.near = nn.Conv2d(w[2], outputs, 1)
        self.far = nn.Conv2d(w[3], outputs, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = F.silu(self.stem(x))
        maps = []
        for down, stage in zip(self.down, self.stages, strict=True):
            x = stage(F.silu(down(x)))
            maps.append(x)
        pyramid = [F.silu(self.squeeze(x))]
        for _ in range(3):
            pyramid.append(F.max_pool2d(pyramid[-1], 5, 1, 2))
        x = F.silu(self.spread(torch.cat(pyramid, 1)))
        up = F.interpolate(x, scale_factor=2.0, mode="nearest")
        return self.near(self.lateral(torch.cat([up, maps[-2]], 1))), self.far(x)
