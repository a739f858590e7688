"""A small network and data that it learns in seconds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from optiprune.structure import Structure, find_structure
from optiprune.training import train


class Net(nn.Module):
    """A stem, a residual block with batch norm, a grouped convolution, two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 12, 3, padding=1)
        self.a = nn.Conv2d(12, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.b = nn.Conv2d(16, 12, 1)
        self.grouped = nn.Conv2d(12, 16, 3, padding=1, groups=2)
        self.hidden = nn.Linear(16, 24)
        self.head = nn.Linear(24, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        x = x + self.b(torch.relu(self.norm(self.a(x))))
        x = torch.relu(self.grouped(x))
        return self.head(torch.relu(self.hidden(x.mean((2, 3)))))


def make_net(seed: int = 0) -> Net:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Net()


def make_stripes(n: int, seed: int, noise: float = 1.0) -> tuple[Tensor, Tensor]:
    """Four kinds of stripes in noise, 8 x 8."""
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(4, (n,), generator=g)
    at = torch.arange(8.0)
    waves = torch.stack(
        [
            at[:, None] + 0 * at,
            at + 0 * at[:, None],
            at[:, None] + at,
            at[:, None] - at,
        ]
    )
    x = torch.sin(1.6 * waves[y])[:, None]
    return x + noise * torch.randn(x.shape, generator=g), y


@pytest.fixture
def net() -> Net:
    return make_net()


@pytest.fixture(scope="session")
def stripes() -> tuple[Tensor, Tensor]:
    return make_stripes(400, 0)


@pytest.fixture(scope="session")
def test_stripes() -> tuple[Tensor, Tensor]:
    return make_stripes(400, 1)


@pytest.fixture(scope="session")
def learnt(stripes: tuple[Tensor, Tensor]) -> nn.Module:
    """A network that knows the stripes; it is left as it is."""
    net = make_net()
    optimizer = torch.optim.Adam(net.parameters(), lr=5e-3)
    train(net, [stripes], optimizer, epochs=12, batch_size=50)
    net.zero_grad()
    return net.eval()


@pytest.fixture
def structure(net: Net, stripes: tuple[Tensor, Tensor]) -> Structure:
    return find_structure(net, (stripes[0][:2],))
