"""Fine-tuning of a masked model leaves its sparsity as it was, and learns."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune.masks import MaskError, MaskSet, keep_masked


def task() -> tuple[nn.Sequential, torch.Tensor, torch.Tensor]:
    """A random teacher's labels: separable, so that a student can learn them."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(256, 10, generator=g)
    y = (x @ torch.randn(10, 3, generator=g)).argmax(1)
    model = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g) * 0.3)
    return model, x, y


def random_masks(model: nn.Module, density: float = 0.4) -> MaskSet:
    g = torch.Generator().manual_seed(1)
    named = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
    return MaskSet({n: torch.rand(p.shape, generator=g) < density for n, p in named})


def loss_of(model, x, y):
    return nn.functional.cross_entropy(model(x), y)


def step(model, optimizer, x, y):
    optimizer.zero_grad()
    loss_of(model, x, y).backward()
    optimizer.step()


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-2),
    "adamw": lambda p: torch.optim.AdamW(p, lr=1e-2, weight_decay=0.1, amsgrad=True),
    "adam-foreach": lambda p: torch.optim.Adam(p, lr=1e-2, weight_decay=1e-3, foreach=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=1e-2, momentum=0.9, centered=True),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())
def test_fine_tuning_keeps_every_zero_and_learns(make):
    model, x, y = task()
    masks = random_masks(model)
    optimizer = make(model.parameters())
    for _ in range(5):  # dense steps: momentum that would revive pruned weights
        step(model, optimizer, x, y)
    masks.apply(model).make_permanent()
    before = loss_of(model, x, y).item()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 60)
    with masks.keep(model, optimizer) as keep:
        assert keep.active
        for _ in range(60):
            optimizer.zero_grad()
            loss_of(model, x, y).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            scheduler.step()
            assert all((p[~masks[n]] == 0).all() for n, p in model.named_parameters() if n in masks)
    assert not keep.active
    assert MaskSet.from_model(model) == masks
    assert loss_of(model, x, y).item() < 0.7 * before


def test_without_it_the_zeros_are_lost():
    # what the test above would not notice, were it vacuous
    model, x, y = task()
    masks = random_masks(model)
    masks.apply(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    with masks.keep(model, optimizer):
        step(model, optimizer, x, y)
    assert MaskSet.from_model(model) == masks
    step(model, optimizer, x, y)
    assert MaskSet.from_model(model).density() > masks.density() + 0.3


def test_each_of_the_two_hooks_is_needed():
    model, x, y = task()
    masks = random_masks(model)
    masks.apply(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with masks.keep(model, optimizer):
        loss_of(model, x, y).backward()
        for n, p in model.named_parameters():
            if n in masks:
                assert (p.grad[~masks[n]] == 0).all()
                assert (p.grad[masks[n]] != 0).any()
    # an unhooked change, as weight decay or old momentum would make it
    keep = keep_masked(model, masks, optimizer)
    with torch.no_grad():
        model[0].weight.add_(1)
    optimizer.step()
    assert MaskSet.from_model(model)["0.weight"].equal(masks["0.weight"])
    with torch.no_grad():
        model[0].weight.add_(1)
    keep.enforce()
    assert MaskSet.from_model(model)["0.weight"].equal(masks["0.weight"])
    keep.remove()
    keep.remove()


def test_old_momentum_of_pruned_weights_is_cleared():
    model, x, y = task()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    step(model, optimizer, x, y)
    masks = random_masks(model)
    masks.apply(model)
    masks.keep(model, optimizer)
    state = optimizer.state[model[0].weight]
    pruned = ~masks["0.weight"]
    assert (state["exp_avg"][pruned] == 0).all()
    assert (state["exp_avg"][~pruned] != 0).any()
    assert float(state["step"]) == 1.0


def test_gradient_accumulation_and_loss_scaling():
    model, x, y = task()
    masks = random_masks(model)
    masks.apply(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    before = loss_of(model, x, y).item()
    with masks.keep(model, optimizer):
        for _ in range(20):
            optimizer.zero_grad()
            for a, b in zip(x.split(128), y.split(128), strict=True):
                scaler.scale(loss_of(model, a, b) / 2).backward()
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            scaler.step(optimizer)
            scaler.update()
    assert MaskSet.from_model(model) == masks
    assert loss_of(model, x, y).item() < 0.9 * before


def test_tied_and_low_precision_parameters():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(4, 4, bias=False)
            self.b = nn.Linear(4, 4, bias=False)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(x).tanh())

    model = Tied().to(torch.bfloat16)
    with torch.no_grad():
        model.a.weight.copy_(torch.eye(4) + 0.5)
    mask = torch.eye(4, dtype=torch.bool)
    masks = MaskSet({"b.weight": mask})
    masks.apply(model)
    before = model.a.weight.detach().clone()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.9)
    with masks.keep(model, optimizer):
        for _ in range(3):
            optimizer.zero_grad()
            model(torch.ones(2, 4, dtype=torch.bfloat16)).sum().backward()
            optimizer.step()
    assert (model.a.weight[~mask] == 0).all()
    assert (model.a.weight[mask] != before[mask]).all()


def test_two_parameters_on_one_memory():
    a, b = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    b.weight = nn.Parameter(a.weight.data)
    model = nn.ModuleList([a, b])
    masks = MaskSet({"0.weight": torch.eye(3, dtype=torch.bool)})
    masks.apply(model)
    optimizer = torch.optim.SGD(b.parameters(), lr=0.1, momentum=0.9)
    with masks.keep(model, optimizer):
        b(torch.ones(1, 3)).sum().backward()
        assert (b.weight.grad[~masks["0.weight"]] == 0).all()


def test_refusals():
    model, x, y = task()
    masks = random_masks(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(MaskError, match=r"non-zero at \d+ pruned weights; call masks.apply"):
        masks.keep(model, optimizer)
    masks.apply(model)
    with pytest.raises(MaskError, match="needs the optimizer"):
        masks.keep(model)
    other, _, _ = task()
    with pytest.raises(MaskError, match="SGD trains none of the masked parameters"):
        masks.keep(model, torch.optim.SGD(other.parameters(), lr=0.1))
    step(model, optimizer, x, y)  # a refused call left no hook behind
    assert MaskSet.from_model(model) != masks
