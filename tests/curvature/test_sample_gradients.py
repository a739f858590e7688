"""Per-sample gradients gathered at a batch equal those of autograd, one sample at a time."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from optiprune.curvature import (
    CalibrationError,
    CalibrationSet,
    find_layers,
    linearise_loss,
    mean_loss,
)
from optiprune.curvature.losses import cross_entropy, divergence, mean_squared, resolve_loss


def per_sample(model: nn.Module, name: str, x: Tensor, y: Tensor) -> Tensor:
    """(N, numel) gradients by one backward pass a sample: the slow, obviously right twin."""
    rows = []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        weight = dict(model.named_parameters())[name]
        rows.append(torch.autograd.grad(loss, weight)[0].reshape(-1))
    return torch.stack(rows)


class Tokens(nn.Module):
    """A layer that sees several positions a sample, and runs twice (its weight is used twice)."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.mix(torch.tanh(self.mix(x))).mean(1))


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(6, 6)
        self.b = nn.Linear(6, 6, bias=False)
        self.b.weight = self.a.weight
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.b(torch.tanh(self.a(x)))))


def networks() -> dict[str, tuple[nn.Module, Tensor]]:
    torch.manual_seed(0)
    conv = [
        nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=1, groups=2),
        nn.Conv2d(4, 6, (3, 2), stride=(1, 2), padding=(2, 0), dilation=(2, 1)),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    ]
    out: dict[str, tuple[nn.Module, Tensor]] = {
        "mlp": (
            nn.Sequential(nn.Linear(6, 7), nn.ReLU(), nn.Linear(7, 3)),
            torch.randn(9, 6),
        ),
        "tokens": (Tokens(), torch.randn(9, 4, 5)),
        "tied": (Tied(), torch.randn(9, 6)),
    }
    for i, c in enumerate(conv):
        tail = nn.Sequential(nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3))
        out[f"conv{i}"] = (nn.Sequential(c, *tail), torch.randn(9, 4, 8, 7))
    return out


@pytest.mark.parametrize("name", list(networks()))
@pytest.mark.parametrize("chunk", [4, 100])
def test_gathered_gradients_are_those_of_autograd(name: str, chunk: int) -> None:
    model, x = networks()[name]
    y = torch.arange(len(x)) % 3
    layers = find_layers(model)
    weights = {k: v.detach() for k, v in model.named_parameters()}
    chosen = {layer.parameter: weights[layer.parameter] for layer in layers}
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    got = linearise_loss(model, layers, chosen, data, cross_entropy, chunk=chunk)
    assert got.n == len(x)
    assert got.loss == pytest.approx(float(F.cross_entropy(model(x), y)), rel=1e-5)
    for layer in layers:
        want = per_sample(model, layer.parameter, x, y)
        index = torch.randperm(layer.numel, generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(
            got.gather(layer.name, index), want[:, index], atol=2e-5, rtol=1e-4
        )
        mean = got.mean[layer.name].reshape(-1)
        torch.testing.assert_close(mean, want.mean(0), atol=2e-5, rtol=1e-4)
        diagonal = got.diagonal(layer.name).reshape(-1)
        torch.testing.assert_close(diagonal, want.square().mean(0), atol=2e-5, rtol=1e-4)


def test_model_is_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))
    model.train()
    model[3].eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.random.get_rng_state()
    layers = find_layers(model)
    weights = {layer.parameter: torch.zeros(layer.shape) for layer in layers}
    data = CalibrationSet.collect(
        [(torch.randn(8, 6), torch.zeros(8, dtype=torch.long))], torch.device("cpu")
    )
    torch.random.set_rng_state(state)
    linearise_loss(model, layers, weights, data, cross_entropy)
    assert [m.training for m in model] == [True, True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not any(m._forward_hooks for m in model.modules())


def test_dropout_and_batch_norm_behave_as_in_evaluation() -> None:
    model = nn.Sequential(
        nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(0.9), nn.Linear(8, 3)
    ).train()
    x, y = torch.randn(8, 6), torch.arange(8) % 3
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    got = mean_loss(model, {}, data, cross_entropy)
    model.eval()
    assert got == pytest.approx(float(F.cross_entropy(model(x), y)), rel=1e-6)


@pytest.mark.parametrize("positions", [1, 3])
def test_true_fisher_of_a_softmax_layer(positions: int) -> None:
    # one linear layer: the curvature of the mean cross-entropy is the mean over positions of
    # (diag p - pp') (x) xx', known exactly, whatever the labels
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    x = torch.randn(1, positions, 2)
    p = torch.softmax(model(x), -1)[0].detach()
    want = torch.stack(
        [
            torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(a, a))
            for q, a in zip(p, x[0], strict=True)
        ]
    ).mean(0)
    data = CalibrationSet.collect([x.expand(40000, positions, 2)], torch.device("cpu"))
    got = linearise_loss(
        model,
        find_layers(model),
        {"0.weight": model[0].weight},
        data,
        cross_entropy,
        sampled_labels=3,
        chunk=40000,
    )
    g = got.gather("0", torch.arange(6))
    torch.testing.assert_close(g.T @ g / got.n, want, atol=0.01, rtol=0.05)


def test_true_fisher_of_a_squared_error() -> None:
    # mean over 3 outputs of (o - t)^2: Hessian 2/3 I (x) xx', exactly
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    x = torch.randn(1, 2)
    data = CalibrationSet.collect([x.expand(40000, 2)], torch.device("cpu"))
    got = linearise_loss(
        model,
        find_layers(model),
        {"0.weight": model[0].weight},
        data,
        mean_squared,
        sampled_labels=3,
        chunk=40000,
    )
    g = got.gather("0", torch.arange(6))
    want = 2 / 3 * torch.kron(torch.eye(3), torch.outer(x[0], x[0]))
    torch.testing.assert_close(g.T @ g / got.n, want, atol=0.01, rtol=0.05)


def test_divergence_is_zero_at_the_dense_model_and_positive_elsewhere() -> None:
    model = nn.Sequential(nn.Linear(5, 4))
    dense = {"0.weight": model[0].weight.detach()}
    data = CalibrationSet.collect([torch.randn(10, 5)], torch.device("cpu"))
    assert mean_loss(model, dense, data, divergence, dense_targets=dense) == pytest.approx(
        0, abs=1e-6
    )
    half = {"0.weight": model[0].weight.detach() * 0.5}
    assert mean_loss(model, half, data, divergence, dense_targets=dense) > 1e-3


def test_bad_losses_are_named() -> None:
    model = nn.Sequential(nn.Linear(5, 4))
    layers = find_layers(model)
    w = {"0.weight": model[0].weight.detach()}
    data = CalibrationSet.collect(
        [(torch.randn(10, 5), torch.zeros(10, dtype=torch.long))], torch.device("cpu")
    )
    with pytest.raises(CalibrationError, match="scalar"):
        linearise_loss(model, layers, w, data, lambda o, t: o.sum(1))
    with pytest.raises(CalibrationError, match="nan"):
        linearise_loss(model, layers, w, data, lambda o, t: o.sum() * float("nan"))
    with pytest.raises(CalibrationError, match="labels are missing"):
        resolve_loss("cross_entropy", None)
    with pytest.raises(CalibrationError, match="labels are missing"):
        resolve_loss("auto", None)(model(torch.randn(2, 5)), None)


def test_layer_that_never_runs_is_named() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    model = Idle()
    layers = find_layers(model)
    data = CalibrationSet.collect([(torch.randn(6, 4), torch.arange(6) % 3)], torch.device("cpu"))
    weights = {
        layer.parameter: dict(model.named_parameters())[layer.parameter].detach()
        for layer in layers
    }
    with pytest.raises(CalibrationError, match="'idle'"):
        linearise_loss(model, layers, weights, data, cross_entropy)
