"""The driver: forward order, inputs from the pruned prefix, refit, and what it refuses."""

import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call

from benchmarks.quality.baselines import (
    ALPS,
    LAYER_METHODS,
    BaselineError,
    LayerBudget,
    Wanda,
    collect_moments,
    prune_layerwise,
)
from optiprune.curvature import CalibrationSet, find_layers
from optiprune.curvature.capture import forward_order
from optiprune.refit import refit_rows

CPU = torch.device("cpu")


class Net(nn.Module):
    """Defined in another order than it runs in; grouped convolution, batch norm, tied layers."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 4)
        self.body = nn.Conv2d(8, 4, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.stem = nn.Conv2d(4, 8, 3, padding=1, groups=2)

    def forward(self, x):
        x = torch.relu(self.norm(self.stem(x)))
        return self.head(torch.relu(self.body(x)).flatten(1))


def case(seed=0):
    g = torch.Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Net()
    data = CalibrationSet.collect([torch.randn(40, 4, 6, 6, generator=g) + 0.3], CPU)
    return model, find_layers(model), data


def dense_of(model, layer):
    return model.get_parameter(layer.parameter).detach().double().reshape(layer.rows, layer.cols)


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("method", LAYER_METHODS.values(), ids=LAYER_METHODS)
def test_every_method_on_a_convolutional_net(method, refit):
    model, layers, data = case()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    budget = LayerBudget(0.4, scope=method.paper_scope)
    masks, values = prune_layerwise(model, layers, method, data, budget, refit=refit, chunk=16)
    assert set(masks) == set(values) == {layer.parameter for layer in layers}
    for layer in layers:
        m, v = masks[layer.parameter], values[layer.parameter]
        dense = model.get_parameter(layer.parameter).detach()
        assert m.shape == v.shape == dense.shape
        assert (m.dtype, v.dtype) == (torch.bool, dense.dtype)
        assert not v[~m].any()
        assert int(m.sum()) == budget.kept(layer.rows, layer.cols)
        if not (refit or method.moves_weights):
            assert torch.equal(v, dense * m)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert model.training
    assert all(m.training for m in model.modules())
    x = next(data.batches(40)).inputs
    assert bool(torch.isfinite(functional_call(model, values, (x,))).all())


def test_each_layer_sees_the_inputs_of_the_pruned_prefix():
    model, layers, data = case()
    by_name = {layer.name: layer for layer in layers}
    masks, values = prune_layerwise(model, layers, Wanda(), data, LayerBudget(0.3), refit=False)
    prefix = {}
    for name in ("stem", "body", "head"):
        layer = by_name[name]
        moments = collect_moments(model, layer, prefix, data)
        mask, _ = Wanda().prune(moments, dense_of(model, layer), LayerBudget(0.3))
        assert torch.equal(masks[layer.parameter], mask.reshape(layer.shape))
        prefix[layer.parameter] = values[layer.parameter]
    # and it matters: on the dense model's inputs the last mask is another
    layer = by_name["head"]
    mask, _ = Wanda().prune(
        collect_moments(model, layer, {}, data), dense_of(model, layer), LayerBudget(0.3)
    )
    assert not torch.equal(mask, masks["head.weight"])


def test_refit_is_the_least_squares_solution_of_each_layer():
    model, layers, data = case()
    masks, values = prune_layerwise(model, layers, Wanda(), data, LayerBudget(0.4), refit=True)
    prefix = {}
    for name in ("stem", "body", "head"):
        layer = next(x for x in layers if x.name == name)
        moments = collect_moments(model, layer, prefix, data)
        dense, mask = dense_of(model, layer), masks[layer.parameter].reshape(layer.rows, -1)
        now = values[layer.parameter].double().reshape(layer.rows, -1)
        error = moments.gram.error
        assert error(now, dense).sum() < error(dense * mask, dense).sum()
        # damping of 1e-4 and float32 weights leave a small part of the gradient
        H = moments.H
        gradient = ((now - dense).reshape(layer.groups, -1, layer.cols) @ H).reshape(now.shape)
        kept = gradient[mask].norm() / gradient[~mask].norm()
        assert float(kept) < 2e-3
        prefix[layer.parameter] = values[layer.parameter]


def test_refit_of_a_method_that_moves_weights_does_not_raise_its_error():
    model, layers, data = case()
    stem = next(layer for layer in layers if layer.name == "stem")
    moments, dense = collect_moments(model, stem, {}, data), dense_of(model, stem)
    errors = []
    for refit in (False, True):
        _, values = prune_layerwise(model, [stem], ALPS(), data, LayerBudget(0.4), refit=refit)
        now = values["stem.weight"].double().reshape(stem.rows, -1)
        errors.append(float(moments.gram.error(now, dense).sum()))
    assert errors[1] < errors[0]


def test_budgets_of_single_layers():
    model, layers, data = case()
    budgets = {"stem": LayerBudget(1.0), "body": LayerBudget(0.5, (2, 4)), "head": LayerBudget(0.0)}
    masks, values = prune_layerwise(model, layers, Wanda(), data, budgets, refit=True)
    assert bool(masks["stem.weight"].all())
    assert torch.equal(values["stem.weight"], model.stem.weight.detach())
    assert bool((masks["body.weight"].reshape(4, -1, 4).sum(2) == 2).all())
    assert not values["head.weight"].any()


def test_nothing_runs_on_a_bad_request():
    model, layers, data = case()
    model.register_forward_pre_hook(lambda *_: pytest.fail("the model was run"))
    half = LayerBudget(0.5)
    for budget, chunk, which, message in (
        (LayerBudget(1 / 5, (1, 5)), 8, layers, "layer 'head' has 16 weights in a row, which 5"),
        ({"stem": half, "body": half}, 8, layers, r"missing: \['head'\]"),
        ({"stem": half, "tail": half}, 8, layers, r"of no layer: \['tail'\]"),
        (half, 0, layers, "chunk must be at least 1, got 0"),
        (half, 8, [], "no layers to prune"),
    ):
        with pytest.raises(BaselineError, match=message):
            prune_layerwise(model, which, Wanda(), data, budget, refit=False, chunk=chunk)


class Block(nn.Module):
    """Attention without its softmax, which is enough: three layers on one input, two behind."""

    def __init__(self, width):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.o, self.up = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.down = nn.Linear(2 * width, width)

    def forward(self, x):
        y = self.norm(x)
        x = x + self.o(torch.tanh(self.q(y)) * self.k(y) + self.v(y))
        return x + self.down(F.relu(self.up(self.norm(x))))


class Decoder(nn.Module):
    def __init__(self, depth=3, width=12):
        super().__init__()
        self.embed = nn.Linear(6, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.head = nn.Linear(width, 4)

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def mlp():
    return nn.Sequential(
        nn.Linear(6, 24), nn.ReLU(inplace=True), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)
    )


def random_case(make, shape):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = make()
        data = CalibrationSet.collect([torch.randn(50, *shape) + 0.3], CPU)
    return model, find_layers(model), data


def on_the_whole_model(model, layers, method, data, budget, refit, chunk):
    """The definition: for every layer, all the data through the whole model as it is by then."""
    masks, values = {}, {}
    for layer in forward_order(model, layers, {}, data, chunk):
        moments, dense = collect_moments(model, layer, values, data, chunk), dense_of(model, layer)
        mask, new = method.prune(moments, dense, budget)
        if refit:
            gram = moments.gram
            new = refit_rows(gram.H, gram.cross(dense), gram.target_energy(dense), mask, new).values
        masks[layer.parameter] = mask.reshape(layer.shape)
        values[layer.parameter] = new.float().reshape(layer.shape)
    return masks, values


@pytest.mark.parametrize("refit", [False, True])
@pytest.mark.parametrize("method", ["wanda", "dsnot", "sparsegpt"])
@pytest.mark.parametrize(
    ("make", "shape"),
    [(Decoder, (5, 6)), (mlp, (6,)), (Net, (4, 6, 6))],
    ids=["decoder", "mlp", "loose convolutions"],
)
def test_results_are_those_of_the_whole_model_run_for_every_layer(make, shape, method, refit):
    model, layers, data = random_case(make, shape)
    chosen = LAYER_METHODS[method]
    budget = LayerBudget(0.4, scope=chosen.paper_scope)
    got = prune_layerwise(model, layers, chosen, data, budget, refit=refit, chunk=16)
    want = on_the_whole_model(model, layers, chosen, data, budget, refit, chunk=16)
    assert list(got[0]) == list(want[0]) == list(got[1])
    for name, mask in want[0].items():
        assert torch.equal(got[0][name], mask), name
        torch.testing.assert_close(got[1][name], want[1][name], rtol=1e-4, atol=1e-5)


def test_the_cost_is_linear_in_the_depth():
    def forwards(depth):
        model, layers, data = random_case(lambda: Decoder(depth), (5, 6))
        calls = []
        model.blocks[-1].register_forward_hook(lambda *_: calls.append(1))
        prune_layerwise(model, layers, Wanda(), data, LayerBudget(0.5), refit=False)
        return len(calls)

    assert forwards(7) == forwards(3)


@pytest.mark.parametrize(("make", "shape"), [(Decoder, (5, 6)), (Net, (4, 6, 6))])
def test_moments_of_one_input_are_held_at_a_time(make, shape):
    model, layers, data = random_case(make, shape)
    matrices, while_running, while_pruning = [], [], []

    def alive():
        return len({id(H) for H in (ref() for ref in matrices) if H is not None})

    class Watched(Wanda):
        def prune(self, moments, weight, budget):
            if not any(ref() is moments.H for ref in matrices):
                matrices.append(weakref.ref(moments.gram.H))
            while_pruning.append(alive())
            return super().prune(moments, weight, budget)

    for layer in layers:
        layer.modules[0].register_forward_pre_hook(lambda *_: while_running.append(alive()))
    prune_layerwise(model, layers, Watched(), data, LayerBudget(0.5), refit=True)
    inputs = 1 + 3 * 4 + 1 if make is Decoder else 3
    assert len(matrices) == inputs
    assert set(while_pruning) == {1}
    assert set(while_running) == {0}
