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
    mean_gradients,
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


class InPlace(nn.Module):
    """Operations in place right after layers, on a view (tokens) as well."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(5, 6)
        self.after = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.mix(x)
        h.relu_()
        y = self.after(h.mean(1))
        y *= 3
        y.relu_()
        return self.head(y)


class Axes(nn.Module):
    """A Linear that gets samples in another place than first."""

    def __init__(self, order: str) -> None:
        super().__init__()
        self.order = order
        self.mix = nn.Linear(5, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        n, t, f = x.shape
        if self.order == "time first":
            h = self.mix(x.transpose(0, 1)).transpose(0, 1)
        elif self.order == "merged":
            h = self.mix(x.reshape(n * t, f)).reshape(n, t, -1)
        elif self.order == "merged, time first":
            h = self.mix(x.transpose(0, 1).reshape(n * t, f)).reshape(t, n, -1).transpose(0, 1)
        else:  # as one packed sequence
            h = self.mix(x.reshape(1, n * t, f)).reshape(n, t, -1)
        # positions count differently, so that mixing them up shows
        return self.head((torch.tanh(h) * torch.arange(1.0, t + 1)[:, None]).mean(1))


class Frames(nn.Module):
    """A convolution over images with samples and frames merged."""

    def __init__(self, time_first: bool) -> None:
        super().__init__()
        self.time_first = time_first
        self.conv = nn.Conv2d(2, 4, 3, padding=1)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x.transpose(0, 1) if self.time_first else x
        h = torch.tanh(self.conv(x.flatten(0, 1))).mean((2, 3)).reshape(*x.shape[:2], 4)
        h = h.transpose(0, 1) if self.time_first else h
        return self.head((h * torch.arange(1.0, h.shape[1] + 1)[:, None]).mean(1))


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
        "in place": (InPlace(), torch.randn(9, 4, 5)),
        "frames": (Frames(False), torch.randn(9, 3, 2, 5, 4)),
        "frames, time first": (Frames(True), torch.randn(9, 3, 2, 5, 4)),
    }
    for order in ("time first", "merged", "merged, time first", "packed"):
        out[order] = (Axes(order), torch.randn(9, 3, 5))
    # as many tokens as samples, in all and in a chunk of 4: shapes alone tell nothing
    out["square"] = (Axes("time first"), torch.randn(9, 9, 5))
    out["square chunk"] = (Axes("time first"), torch.randn(9, 4, 5))
    out["double chunk"] = (Tokens(), torch.randn(9, 8, 5))
    for i, c in enumerate(conv):
        tail = [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(24, 3)]
        out[f"conv{i}"] = (nn.Sequential(c, nn.ReLU(inplace=True), *tail), torch.randn(9, 4, 8, 7))
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
        torch.testing.assert_close(got.whole(layer.name), want, atol=2e-5, rtol=1e-4)
        step = torch.randn(layer.rows, layer.cols, generator=torch.Generator().manual_seed(2))
        torch.testing.assert_close(
            got.project(layer.name, step), want @ step.reshape(-1), atol=2e-4, rtol=1e-4
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


def linearise(model: nn.Module, x: Tensor, y: Tensor | None = None, chunk: int = 4) -> None:
    layers = find_layers(model)
    weights = {k: v.detach() for k, v in model.named_parameters()}
    item = (x, torch.arange(len(x)) % 3 if y is None else y)
    data = CalibrationSet.collect([item], torch.device("cpu"))
    linearise_loss(model, layers, weights, data, cross_entropy, chunk=chunk)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(4, 2, batch_first=True)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Scaled(nn.Module):
    """Uses the weight in a call and past it."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + x @ self.fc.weight.T


class Routed(nn.Module):
    """Each sample goes to one of two experts."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 3)
        self.b = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = torch.zeros(len(x), 3)
        up = x[:, 0] > 0
        out[up] = self.a(x[up])
        out[~up] = self.b(x[~up])
        return out


class Table(nn.Module):
    """A layer over a table that no sample has a part in, of as many rows as a chunk."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.randn(4, 4))
        self.embed = nn.Linear(4, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x @ self.embed(self.table))


def test_weights_used_past_their_module_are_named() -> None:
    with pytest.raises(CalibrationError, match=r"'attention\.out_proj'.*without calling"):
        linearise(Attention(), torch.randn(9, 5, 4))
    with pytest.raises(CalibrationError, match=r"'fc'.*without calling"):
        linearise(Scaled(), torch.randn(9, 4))
    hooked = nn.Sequential(nn.Linear(4, 3))
    hooked[0].register_forward_hook(lambda m, args, out: torch.tanh(out))
    with pytest.raises(CalibrationError, match=r"'0'.*changed by a hook"):
        linearise(hooked, torch.randn(9, 4))


def test_transformer_layers_without_the_projection_are_right() -> None:
    torch.manual_seed(0)
    body = nn.TransformerEncoderLayer(6, 2, 8, dropout=0.0, batch_first=False)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.head = body, nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(x.transpose(0, 1))[0])

    model, x = Net().eval(), torch.randn(6, 6, 6)
    y = torch.arange(6) % 3
    layers = find_layers(model, exclude=["*.out_proj"])
    weights = {k: v.detach() for k, v in model.named_parameters()}
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    got = linearise_loss(model, layers, weights, data, cross_entropy)
    for layer in layers:
        want = per_sample(model, layer.parameter, x, y)
        index = torch.arange(layer.numel)
        torch.testing.assert_close(got.gather(layer.name, index), want, atol=2e-5, rtol=1e-4)


def test_inputs_that_do_not_part_into_samples_are_named() -> None:
    with pytest.raises(CalibrationError, match=r"'a'.*each sample's own part cannot be found"):
        linearise(Routed(), torch.linspace(-1, 2, 9)[:, None] * torch.ones(4), chunk=9)
    # half of the samples to each expert, so that their number divides no less
    x = torch.tensor([1.0, -1, 1, -1])[:, None] * torch.ones(4)
    with pytest.raises(CalibrationError, match=r"'a'.*each sample's own part cannot be found"):
        linearise(Routed(), torch.cat([x, x]), chunk=2)
    with pytest.raises(CalibrationError, match=r"'embed'.*each sample's own part cannot be found"):
        linearise(Table(), torch.randn(8, 4))


def test_layers_that_see_some_batches_only() -> None:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) if float(x.mean()) > 0 else self.b(x)

    model, up = Experts(), torch.rand(4, 4)
    x, y = torch.cat([up, -up, up]), torch.arange(12) % 3
    layers = find_layers(model)
    weights = {k: v.detach() for k, v in model.named_parameters()}
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    got = linearise_loss(model, layers, weights, data, cross_entropy, chunk=4)
    g = got.gather("b", torch.arange(12))
    assert (g[4:8] != 0).all()
    assert not g[:4].any()
    assert not g[8:].any()
    torch.testing.assert_close(g.mean(0), got.mean["b"].reshape(-1))
    torch.testing.assert_close(g.square().mean(0), got.diagonal("b").reshape(-1))


def test_the_gradient_alone_keeps_no_activations() -> None:
    class Watch(nn.Module):
        hooks = 0

        def forward(self, x: Tensor) -> Tensor:
            Watch.hooks = max(Watch.hooks, len(model[0]._forward_hooks))
            return x

    model = nn.Sequential(nn.Linear(4, 3), Watch())
    layers, weights = find_layers(model), {"0.weight": model[0].weight.detach()}
    x, y = torch.randn(50, 4), torch.arange(50) % 3
    data = CalibrationSet.collect([(x, y)], torch.device("cpu"))
    got = mean_gradients(model, layers, weights, data, cross_entropy, chunk=7)
    assert Watch.hooks == 0
    same = linearise_loss(model, layers, weights, data, cross_entropy, chunk=7).mean
    assert Watch.hooks == 1
    torch.testing.assert_close(got, same)


def test_a_gradient_of_rounding_errors_alone_is_no_fault() -> None:
    class Invariant(nn.Module):
        """A softmax over positions does not feel what all of them get."""

        def __init__(self) -> None:
            super().__init__()
            self.shift, self.head = nn.Linear(2, 1), nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            same = x.mean(1, keepdim=True).expand_as(x)
            p = torch.softmax(self.shift(same) + x[:, :, :1], 1)
            return self.head((p * x).sum(1))

    torch.manual_seed(0)
    linearise(Invariant(), torch.randn(9, 50, 2))
