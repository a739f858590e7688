"""Gradients that are summed where they lie are those of torch's own Adam on masked gradients."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from optiprune.engine.masked_adam import MaskedAdam


def start() -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    g = torch.Generator().manual_seed(0)
    kept = {k: torch.rand(4, 6, generator=g) < 0.6 for k in ("a", "b", "unused")}
    leaves = {k: (torch.randn(4, 6, generator=g) * m).requires_grad_(True) for k, m in kept.items()}
    return leaves, kept


def summed(w: dict[str, Tensor], x: Tensor) -> Tensor:
    # views of two weights in one sum: torch hands both the same gradient
    return F.linear(x, w["a"].flatten(1) + w["b"].flatten(1)).square().sum()


def test_steps_are_those_of_adam_on_masked_gradients() -> None:
    leaves, kept = start()
    want, _ = start()
    ours = MaskedAdam(leaves, kept, 0.1, 10)
    scales = {
        k: float(v.detach().double().square().sum() / max(1, int(kept[k].sum()))) ** 0.5
        for k, v in want.items()
    }
    torch_adam = torch.optim.Adam(
        [{"params": [v], "lr": 0.1 * scales[k]} for k, v in want.items()], lr=0.1
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(
        torch_adam, lambda s: 0.5 * (1 + float(torch.cos(torch.tensor(torch.pi * s / 10))))
    )
    for step in range(3):
        sums = dict.fromkeys(want, torch.zeros(4, 6))
        for part in range(2):  # two parts of a step
            x = torch.randn(5, 6, generator=torch.Generator().manual_seed(2 * step + part))
            ours.add(summed(ours.weights(), x))
            found = torch.autograd.grad(summed(want, x), [want["a"], want["b"]])
            for key, grad in zip(("a", "b"), found, strict=True):
                sums[key] = sums[key] + grad * kept[key]
        ours.step(10)
        for key in ("a", "b"):
            want[key].grad = sums[key] / 10
        torch_adam.step()
        schedule.step()
        for key, value in leaves.items():
            torch.testing.assert_close(value, want[key], rtol=1e-5, atol=1e-6)
            assert bool((value[~kept[key]] == 0).all())
            assert value.grad is None
