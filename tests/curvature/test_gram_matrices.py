"""Gram matrices against the layer's own outputs, and what goes wrong in collecting them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune.curvature.capture import forward_order
from optiprune.curvature.data import CalibrationError, CalibrationSet
from optiprune.curvature.gram import collect_grams, input_norms, wanda_scores
from optiprune.curvature.layers import LayerError, find_layers
from optiprune.curvature.positions import positions

CPU = torch.device("cpu")


def randn(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def data_of(*batches):
    return CalibrationSet.collect(list(batches), CPU)


def weights_of(model, noise=0.0):
    g = torch.Generator().manual_seed(7)
    return {
        n: p.detach() + noise * torch.randn(p.shape, generator=g)
        for n, p in model.named_parameters()
    }


def direct_error(layer, module, weight, xp, xd):
    """Error of each output row by running the module itself, in float64."""
    module = module.double()
    with torch.no_grad():
        dense = module(xd.double())
        pruned = torch.func.functional_call(module, {"weight": weight.double()}, (xp.double(),))
    d = (pruned - dense).square()
    if isinstance(module, nn.Conv2d):
        return d.transpose(0, 1).reshape(layer.rows, -1).mean(1)
    return d.reshape(-1, layer.rows).mean(0)


class Split(nn.Module):
    """A layer whose input depends on another weight, so that pruned and dense inputs differ."""

    def __init__(self, layer):
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.layer = layer

    def forward(self, x):
        return self.layer(x * self.scale + x.abs() * (1 - self.scale))


def check_layer(module, x):
    module.requires_grad_(False)
    model = Split(module)
    (layer,) = find_layers(model)
    dense = weights_of(model)
    pruned = {"scale": torch.tensor(0.6)}
    gram = collect_grams(model, [layer], dense, pruned, data_of(x), chunk=3)["layer"]
    w = module.weight.detach()
    new = w * (randn(*w.shape, seed=5) > 0)
    xp = x * 0.6 + x.abs() * (1 - torch.tensor(0.6))
    expected = direct_error(layer, module, new, xp, x)
    rows = new.reshape(layer.rows, -1), w.reshape(layer.rows, -1)
    assert gram.error(*rows).numpy() == pytest.approx(expected.numpy(), rel=1e-4, abs=1e-6)
    # the three terms, one by one
    cross = (rows[0].double() * gram.cross(rows[1])).sum(1)
    quadratic = gram.error(rows[0], torch.zeros_like(rows[1]))
    total = quadratic - 2 * cross + gram.target_energy(rows[1])
    assert torch.allclose(total, gram.error(*rows), rtol=1e-9, atol=1e-9)
    assert torch.equal(gram.H, gram.H.transpose(1, 2))
    assert torch.equal(gram.D, gram.D.transpose(1, 2))
    assert not gram.same_inputs
    # the layer is linear: its mean output without bias is what it makes of the mean input
    total = torch.func.functional_call(module, {"weight": new.double()}, (xp.double(),))
    total = total if module.bias is None else total - module(torch.zeros_like(xp).double())
    conv = isinstance(module, nn.Conv2d)
    mean = total.transpose(0, 1).flatten(1) if conv else total.reshape(-1, layer.rows).T
    by_row = gram.mean.repeat_interleave(layer.rows // layer.groups, 0)
    assert torch.allclose((rows[0].double() * by_row).sum(1), mean.mean(1), atol=1e-6)


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 9), st.integers(1, 7), st.lists(st.integers(1, 4), max_size=2), st.booleans())
def test_linear_error_equals_output_error(cols, rows, lead, bias):
    check_layer(nn.Linear(cols, rows, bias=bias), randn(5, *lead, cols))


@settings(max_examples=30, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 3]),
    per_in=st.integers(1, 2),
    per_out=st.integers(1, 3),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.integers(1, 2),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.sampled_from(["same", "valid", 0, 1, (2, 1)]),
    bias=st.booleans(),
)
def test_conv_error_equals_output_error(
    groups, per_in, per_out, kernel, stride, dilation, padding, bias
):
    if padding == "same":
        stride = 1
    conv = nn.Conv2d(
        per_in * groups, per_out * groups, kernel, stride, padding, dilation, groups, bias
    )
    check_layer(conv, randn(4, per_in * groups, 8, 9))


def test_hand_derived_gram():
    model = nn.Sequential(nn.Linear(2, 1, bias=False))
    (layer,) = find_layers(model)
    gram = collect_grams(model, [layer], {}, None, data_of(torch.tensor([[1.0, 2], [3, -1]])))["0"]
    # (1*1 + 3*3)/2, (1*2 - 3*1)/2, (4 + 1)/2
    assert gram.H.tolist() == [[[5.0, -0.5], [-0.5, 2.5]]]
    assert gram.same_inputs
    assert gram.n == 2
    assert gram.norms()[0].tolist() == pytest.approx([5**0.5, 2.5**0.5])
    # removing the second of (1, 1) costs 2.5, both 5 - 1 + 2.5
    rows = torch.tensor([[1.0, 1.0]])
    assert gram.error(torch.tensor([[1.0, 0.0]]), rows).item() == pytest.approx(2.5)
    assert gram.error(torch.zeros(1, 2), rows).item() == pytest.approx(6.5)
    assert gram.error(rows, rows).item() == 0.0
    with pytest.raises(LayerError, match="shape"):
        gram.error(torch.zeros(1, 3), torch.zeros(1, 3))


def test_modules_used_often_and_tied_weights_add_up():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.b(self.a(self.a(x).relu()).relu())

    model, x = Twice(), randn(20, 3)
    (layer,) = find_layers(model)
    gram = collect_grams(model, [layer], weights_of(model), None, data_of(x), chunk=6)["a"]
    with torch.no_grad():
        x1 = model.a(x).relu()
        inputs = torch.cat([x, x1, model.a(x1).relu()]).double()
    assert gram.n == 60
    assert torch.allclose(gram.H[0], inputs.T @ inputs / 60, rtol=1e-6, atol=1e-7)


def test_pruned_prefix_only_changes_what_comes_after():
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(inplace=True), nn.Linear(5, 3))
    layers = find_layers(model)
    dense = weights_of(model)
    mask = randn(5, 4, seed=2) > 0
    pruned = {**dense, "0.weight": dense["0.weight"] * mask}
    grams = collect_grams(model, layers, dense, pruned, data_of(randn(40, 4)), chunk=16)
    assert grams["0"].same_inputs
    assert not grams["2"].same_inputs
    # the second layer pays for the first one's pruning even when it is not pruned itself
    w = dense["2.weight"]
    assert grams["2"].error(w, w).sum() > 0
    assert torch.equal(model[0].weight, dense["0.weight"])


def test_positional_keyword_and_dict_inputs_agree():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(3, 2)

        def forward(self, tokens, shift=None):
            return self.fc(input=tokens if shift is None else tokens + shift)

    model, x = Named(), randn(12, 3)
    layers = find_layers(model)
    one = collect_grams(model, layers, {}, None, data_of(x))["fc"]
    two = collect_grams(model, layers, {}, None, data_of({"tokens": x, "shift": 0 * x}))["fc"]
    assert torch.allclose(one.H, two.H)


def test_model_comes_back_as_it_was_and_chunks_do_not_matter():
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.Linear(6, 2))
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    layers, x = find_layers(model), randn(50, 4)
    a = collect_grams(model, layers, {}, None, data_of(x), chunk=7)
    b = collect_grams(model, layers, {}, None, data_of(x), chunk=50)
    assert torch.allclose(a["3"].H, b["3"].H, rtol=1e-6)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert not model[0]._forward_pre_hooks


def test_forward_stops_after_the_last_layer_needed():
    class Counting(nn.Module):
        runs = 0

        def forward(self, x):
            self.runs += 1
            return x

    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), Counting())
    layers = find_layers(model, include=("0",))
    gram = collect_grams(model, layers, {}, None, data_of(randn(40, 3)), chunk=10)["0"]
    assert gram.n == 40
    assert model[2].runs == 1  # the first chunk runs through, the other three stop early


def test_non_finite_activations_name_the_layer():
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    weights = {"0.weight": torch.full((2, 2), float("inf"))}
    data = data_of(torch.ones(4, 2))
    with pytest.raises(CalibrationError, match="layer '1' holds NaN"):
        collect_grams(model, find_layers(model), weights, None, data)


def test_layers_that_never_run_are_named():
    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(2, 2)
            self.spare = nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    model = Idle()
    layers, data = find_layers(model), data_of(randn(4, 2))
    for call in (
        lambda: collect_grams(model, layers, {}, None, data),
        lambda: input_norms(model, layers, data),
        lambda: forward_order(model, layers, {}, data),
    ):
        with pytest.raises(CalibrationError, match="spare"):
            call()


def test_forward_order_is_that_of_the_calls():
    class Backwards(nn.Module):
        def __init__(self):
            super().__init__()
            self.last = nn.Linear(2, 2)
            self.first = nn.Linear(2, 2)

        def forward(self, x):
            return self.last(self.first(x))

    model = Backwards()
    order = forward_order(model, find_layers(model), {}, data_of(randn(4, 2)))
    assert [layer.name for layer in order] == ["first", "last"]


def test_calls_that_differ_between_the_models_are_refused():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(2, 2)

        def forward(self, x):
            y = self.fc(x)
            return self.fc(y) if float(y.detach().abs().sum()) > 1e-6 else y

    model = Moody()
    zero = {"fc.weight": torch.zeros(2, 2), "fc.bias": torch.zeros(2)}
    with pytest.raises(CalibrationError, match="pruned"):
        collect_grams(model, find_layers(model), {}, zero, data_of(randn(4, 2)))
    with pytest.raises(CalibrationError, match="otherwise"):
        collect_grams(model, find_layers(model), zero, {}, data_of(randn(4, 2)))


def test_norms_are_the_diagonal_and_make_wanda_scores():
    model = nn.Sequential(nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU(), nn.Flatten())
    model.append(nn.Linear(6 * 25, 3))
    layers, data = find_layers(model), data_of(randn(9, 4, 5, 5))
    grams = collect_grams(model, layers, {}, None, data)
    norms = input_norms(model, layers, data, chunk=4)
    for layer in layers:
        assert torch.allclose(norms[layer.name], grams[layer.name].norms())
    conv = layers[0]
    w = model[0].weight
    scores = wanda_scores(conv, w, norms["0"])
    # channel 4 belongs to the second group; kernel position (1, 2) of its second input is col 14
    expected = abs(w[4, 1, 1, 2].item()) * norms["0"][1, 14].item()
    assert scores[4, 1, 1, 2].item() == pytest.approx(expected)
    with pytest.raises(LayerError, match="norms"):
        wanda_scores(conv, w, norms["0"][:1])


class Experts(nn.Module):
    """Whole batches go to one of two experts, by the sign of the data."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3, 2)
        self.b = nn.Linear(3, 3)
        self.a = nn.Linear(3, 3)

    def forward(self, x):
        return self.head((self.a if float(x.mean()) > 0 else self.b)(x).relu())


def test_modules_that_run_on_some_of_the_data_only():
    torch.manual_seed(0)
    model, up = Experts(), randn(40, 3).abs()
    layers, data = find_layers(model), data_of(torch.cat([up, -up]))
    grams = collect_grams(model, layers, weights_of(model), weights_of(model), data, chunk=20)
    assert {name: g.n for name, g in grams.items()} == {"a": 40, "b": 40, "head": 80}
    # a and b before the head, though the first sample never meets b
    order = forward_order(model, layers, {}, data, chunk=20)
    assert {layer.name for layer in order[:2]} == {"a", "b"}


def test_rows_are_complete_when_a_later_chunk_runs_otherwise():
    class Moody(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Linear(3, 3)
            self.b = nn.Linear(3, 3)

        def forward(self, x):
            if float(x.mean()) > 0:
                return self.b(self.a(x))
            return self.b(self.a(self.a(x)))

    model, up = Moody(), randn(20, 3).abs()
    grams = collect_grams(
        model, find_layers(model), {}, None, data_of(torch.cat([up, -up])), chunk=20
    )
    assert {name: g.n for name, g in grams.items()} == {"a": 60, "b": 40}


def test_non_finite_inputs_are_named_in_later_chunks_and_by_the_norms():
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    # overflows in float32 on the last sample alone, after the first layer
    x = torch.ones(9, 2)
    x[8] = 1e38
    weights = {"0.weight": torch.full((2, 2), 1e30)}
    for call in (
        lambda: collect_grams(model, find_layers(model), weights, None, data_of(x), chunk=3),
        lambda: collect_grams(model, find_layers(model), {}, weights, data_of(x), chunk=3),
        lambda: input_norms(model, find_layers(model), data_of(x), weights, chunk=3),
    ):
        with pytest.raises(CalibrationError, match="layer '2' holds NaN or infinite"):
            call()


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (nn.Linear(7, 3), randn(40, 5, 7)),
        (nn.Conv2d(4, 6, 3, stride=2, padding=1, dilation=(1, 2), groups=2), randn(20, 4, 11, 9)),
        (nn.Conv2d(4, 6, (2, 3), padding="same"), randn(20, 4, 8, 8)),
    ],
)
def test_fewer_positions_are_some_of_all(module, x):
    layer = find_layers(nn.Sequential(module))[0]
    whole = torch.cat(list(positions(layer, module, x)), 1)
    for most in (1, 13, whole.shape[1] - 1, whole.shape[1] + 5):
        few = torch.cat(list(positions(layer, module, x, most)), 1)
        assert few.shape == (layer.groups, min(most, whole.shape[1]), layer.cols)
        # each is a position of its own, in order
        equal = (few[0][:, None] == whole[0][None]).all(2)
        where = equal.double().argmax(1)
        assert bool(equal.any(1).all())
        assert bool((where.diff() > 0).all())


def test_a_share_of_the_positions_gives_nearly_the_moments_of_all():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1))
    layers = find_layers(model)
    # a pattern with the images' width as its period: taking every so many would see only some
    x = randn(200, 2, 16, 16) + 3.0 * torch.arange(16.0)
    data = data_of(x)
    whole = collect_grams(model, layers, {}, None, data, chunk=32)
    few = collect_grams(model, layers, {}, None, data, chunk=32, per_input=200)
    for name, cols in (("0", 18), ("2", 36)):
        assert few[name].n == pytest.approx(200 * cols, rel=0.01)
        assert whole[name].n == 200 * 256
        scale = whole[name].norms()[0]
        gap = (few[name].H - whole[name].H)[0].abs() / (scale[:, None] * scale)
        assert float(gap.max()) < 0.06


def test_thinned_pairs_are_of_the_same_positions():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 3, 3))
    layers = find_layers(model)
    doubled = {"0.weight": 2 * model[0].weight.detach(), "0.bias": 2 * model[0].bias.detach()}
    gram = collect_grams(
        model, layers, {}, doubled, data_of(randn(50, 1, 9, 9)), chunk=20, per_input=3
    )["2"]
    torch.testing.assert_close(gram.H, 4 * gram.D)
    torch.testing.assert_close(gram.C, 2 * gram.D)


@pytest.mark.parametrize("spread", [1.0, 1e4])
def test_products_in_float32_keep_to_their_bound(spread):
    model = nn.Sequential(nn.Linear(60, 3))
    x = randn(6000, 60) + 2.0
    x[::500, 7] *= spread  # a few outliers, as language models have them
    x[:, 8] /= spread
    gram = collect_grams(model, find_layers(model), {}, None, data_of(x), chunk=2500)["0"]
    exact = x.double().T @ x.double() / len(x)
    norms = exact.diagonal().sqrt()
    off = ((gram.H[0] - exact).abs() / (norms[:, None] * norms)).max()
    assert 0.0 < float(off) < 1e-6


def test_squares_that_overflow_in_float32_are_no_infinity():
    model = nn.Sequential(nn.Linear(2, 2))
    x = torch.full((600, 2), 1e30)
    gram = collect_grams(model, find_layers(model), {}, None, data_of(x), chunk=600)["0"]
    assert float(gram.H[0, 0, 1]) == pytest.approx(1e60)
