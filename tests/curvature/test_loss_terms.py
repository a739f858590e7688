"""The loss, its gradient and its curvature are those of one call over all data."""

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
    mean_gradients,
    mean_loss,
)
from optiprune.curvature.losses import (
    LossFunction,
    cross_entropy,
    divergence,
    mean_squared,
    own_loss,
)

CPU = torch.device("cpu")


class PerPosition(nn.Module):
    """(N, T, 3) -> logits (N, T, 4), or (N, 4, T) as of a segmentation."""

    def __init__(self, torch_layout: bool = False) -> None:
        super().__init__()
        self.torch_layout = torch_layout
        self.first, self.second = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        out = self.second(torch.tanh(self.first(x)))
        return out.transpose(1, 2) if self.torch_layout else out


def padded() -> tuple[Tensor, Tensor]:
    """Sequences of several lengths; two samples in a row have no label at all."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(8, 6, 3, generator=g)
    y = torch.randint(0, 4, (8, 6), generator=g)
    for labels, length in zip(y, (1, 3, 0, 0, 6, 2, 5, 4), strict=True):
        labels[length:] = -100
    return x, y


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.detach() for k, v in model.named_parameters() if k.endswith("weight")}


def sampled(model: nn.Module, data: CalibrationSet, chunk: int) -> Tensor:
    """Per-sample gradients of a model of one layer with 6 weights, on sampled labels."""
    layers = find_layers(model)
    got = linearise_loss(
        model, layers, weights_of(model), data, cross_entropy, sampled_labels=3, chunk=chunk
    )
    return got.gather(layers[0].name, torch.arange(6))


@pytest.mark.parametrize("torch_layout", [False, True])
@pytest.mark.parametrize("chunk", [1, 2, 3, 8])
def test_ignored_labels_count_nowhere(chunk: int, torch_layout: bool) -> None:
    torch.manual_seed(0)
    model, (x, y) = PerPosition(torch_layout), padded()
    layers, weights = find_layers(model), weights_of(model)
    data = CalibrationSet.collect([(x, y)], CPU)

    def direct(part: slice, reduction: str = "mean") -> Tensor:
        logits = model(x[part])
        by_class = logits if torch_layout else logits.transpose(1, 2)
        return F.cross_entropy(by_class, y[part], reduction=reduction)

    whole = direct(slice(None))
    assert mean_loss(model, weights, data, cross_entropy, chunk=chunk) == pytest.approx(
        whole.item(), rel=1e-6
    )
    want = torch.autograd.grad(whole, [model.first.weight, model.second.weight])
    got = linearise_loss(model, layers, weights, data, cross_entropy, chunk=chunk)
    alone = mean_gradients(model, layers, weights, data, cross_entropy, chunk=chunk)
    assert got.loss == pytest.approx(whole.item(), rel=1e-6)
    counted = int((y != -100).sum())
    for layer, w in zip(layers, want, strict=True):
        torch.testing.assert_close(got.mean[layer.name], w, atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(alone[layer.name], w, atol=1e-6, rtol=1e-5)
        g = got.gather(layer.name, torch.arange(layer.numel))
        torch.testing.assert_close(g.mean(0), w.reshape(-1), atol=1e-6, rtol=1e-5)
        torch.testing.assert_close(
            g.square().mean(0), got.diagonal(layer.name).reshape(-1), atol=1e-6, rtol=1e-5
        )
        # a sample's share is the sum over its own labels
        one = direct(slice(5, 6), "sum")
        parameter = dict(model.named_parameters())[layer.parameter]
        (own,) = torch.autograd.grad(one, parameter)
        torch.testing.assert_close(g[5], own.reshape(-1) * len(x) / counted, atol=1e-6, rtol=1e-5)
        assert not g[2:4].any()


def test_true_fisher_counts_each_label_once_whatever_the_padding() -> None:
    # one linear layer: the mean of (diag p - pp') (x) xx' over the labels that count
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3, bias=False))
    x = torch.randn(2, 4, 2)
    y = torch.zeros(2, 4, dtype=torch.long)
    y[0, 1:] = -100
    y[1, 3:] = -100
    p = torch.softmax(model(x), -1).detach()[y == 0]
    want = torch.stack(
        [
            torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(a, a))
            for q, a in zip(p, x[y == 0], strict=True)
        ]
    ).mean(0)
    data = CalibrationSet.collect([(x.repeat(20000, 1, 1), y.repeat(20000, 1))], CPU)
    g = sampled(model, data, 7001)
    torch.testing.assert_close(g.T @ g / len(g), want, atol=0.01, rtol=0.05)


def test_true_fisher_of_a_segmentation_draws_classes() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 1, bias=False))
    x = torch.randn(1, 2, 2, 4)
    pixels = x[0].flatten(1).T
    p = torch.softmax(pixels @ model[0].weight.detach()[:, :, 0, 0].T, -1)
    want = torch.stack(
        [
            torch.kron(torch.diag(q) - torch.outer(q, q), torch.outer(a, a))
            for q, a in zip(p, pixels, strict=True)
        ]
    ).mean(0)
    n = 20000
    data = CalibrationSet.collect(
        [(x.expand(n, 2, 2, 4), torch.zeros(n, 2, 4, dtype=torch.long))], CPU
    )
    g = sampled(model, data, n)
    torch.testing.assert_close(g.T @ g / len(g), want, atol=0.01, rtol=0.05)


@pytest.mark.parametrize("loss", [mean_squared, divergence])
def test_batches_of_unequal_lengths_count_by_their_terms(loss: LossFunction) -> None:
    torch.manual_seed(0)
    model = PerPosition()
    items = [(torch.randn(2, t, 3), torch.randn(2, t, 4)) for t in (1, 5)]
    data = CalibrationSet.collect(items, CPU)
    want = loss(
        torch.cat([model(x).reshape(-1, 4) for x, _ in items]),
        torch.cat([y.reshape(-1, 4) for _, y in items]),
    ).item()
    layers, weights = find_layers(model), weights_of(model)
    for chunk in (1, 2):
        assert mean_loss(model, weights, data, loss, chunk=chunk) == pytest.approx(want, rel=1e-6)
        got = linearise_loss(model, layers, weights, data, loss, chunk=chunk)
        assert got.loss == pytest.approx(want, rel=1e-6)
        g = got.gather("first", torch.arange(15))
        torch.testing.assert_close(g.mean(0), got.mean["first"].reshape(-1), atol=1e-6, rtol=1e-5)


def test_class_probabilities_are_targets_too() -> None:
    torch.manual_seed(0)
    model, x = PerPosition(torch_layout=True), torch.randn(7, 6, 3)
    y = torch.softmax(torch.randn(7, 4, 6), 1)
    data = CalibrationSet.collect([(x, y)], CPU)
    got = mean_loss(model, {}, data, cross_entropy, chunk=3)
    assert got == pytest.approx(F.cross_entropy(model(x), y).item(), rel=1e-6)


def test_a_loss_of_unknown_terms_counts_samples() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 1)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            return {"loss": self.fc(x).square().mean()}

    model, x = Own(), torch.randn(7, 3)
    data = CalibrationSet.collect([x], CPU)
    assert mean_loss(model, {}, data, own_loss, chunk=3) == pytest.approx(
        model(x)["loss"].item(), rel=1e-6
    )


def test_labels_that_cannot_be_used_are_named() -> None:
    model, (x, y) = PerPosition(), padded()
    layers, weights = find_layers(model), weights_of(model)
    nothing = CalibrationSet.collect([(x, torch.full_like(y, -100))], CPU)
    for call in (
        lambda: mean_loss(model, weights, nothing, cross_entropy),
        lambda: linearise_loss(model, layers, weights, nothing, cross_entropy),
        lambda: mean_gradients(model, layers, weights, nothing, cross_entropy),
    ):
        with pytest.raises(CalibrationError, match="no label of the calibration data counts"):
            call()
    with pytest.raises(CalibrationError, match="may be dimension 1 or the last"):
        cross_entropy(torch.zeros(8, 5, 5), torch.zeros(8, 5, dtype=torch.long))
    with pytest.raises(CalibrationError, match=r"\(8, 5\) with targets of shape \(7,\).*not fit"):
        cross_entropy(torch.zeros(8, 5), torch.zeros(7, dtype=torch.long))
    with pytest.raises(CalibrationError, match="must be equal"):
        mean_squared(torch.zeros(8, 1), torch.zeros(8))
    with pytest.raises(CalibrationError, match="does not depend"):
        linearise_loss(model, layers, weights, nothing, lambda o, t: torch.tensor(1.0))
