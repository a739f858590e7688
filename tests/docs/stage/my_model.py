"""What the pages call ``my_model.py``: a small residual network and data, made in milliseconds.

A copy lies in the folder that each page's blocks run in. Pages whose reader has something else at
hand make it in a ``<!-- setup`` comment of their own.
"""

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Two convolutions beside a shortcut."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x + self.conv2(torch.relu(self.norm(self.conv1(x)))))


class Network(nn.Module):
    """Images (n, 3, h, w) to 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 2)  # rows of 12, which 2:4 divides
        self.layer1 = nn.Sequential(Block(16), Block(16))
        self.hidden = nn.Linear(16, 32)
        self.head = nn.Linear(32, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer1(torch.relu(self.stem(x))).mean((2, 3))
        return self.head(torch.relu(self.hidden(x)))


def load() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Network().eval()


def example() -> Tensor:
    return torch.randn((8, 3, 8, 8), generator=torch.Generator().manual_seed(1))


def calibration() -> list[tuple[Tensor, Tensor]]:
    """Batches of (images, labels)."""
    draw = torch.Generator().manual_seed(2)
    images = torch.randn((48, 3, 8, 8), generator=draw)
    labels = torch.randint(0, 4, (48,), generator=draw)
    return list(zip(images.split(16), labels.split(16), strict=True))


batches = calibration


def evaluate(model: nn.Module) -> dict[str, float]:
    with torch.no_grad():
        hits = [(model(x).argmax(1) == y).double().mean() for x, y in calibration()]
    return {"accuracy": float(sum(hits) / len(hits))}
