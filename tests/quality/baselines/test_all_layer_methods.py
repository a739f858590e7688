"""What every layer-wise baseline must do, over budgets, groups and degenerate layers."""

import pytest
import torch

from benchmarks.quality.baselines import LAYER_METHODS, BaselineError, LayerBudget

METHODS = list(LAYER_METHODS.values())
BUDGETS = [
    LayerBudget(0.3),
    LayerBudget(0.3, scope="layer"),
    LayerBudget.of_pattern(2, 4),
    LayerBudget.of_pattern(4, 8),
    LayerBudget.of_pattern(1, 16),
    LayerBudget(0.0),
    LayerBudget(1.0),
    LayerBudget(0.0, scope="layer"),
    LayerBudget(1.0, scope="layer"),
]

every_method = pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
every_budget = pytest.mark.parametrize("budget", BUDGETS, ids=str)


def check(method, moments, weight, budget):
    """Prune; shapes, counts and values as promised."""
    before = weight.clone()
    mask, values = method.prune(moments, weight, budget)
    assert torch.equal(weight, before)
    assert mask.shape == values.shape == weight.shape
    assert (mask.dtype, values.dtype) == (torch.bool, torch.float64)
    assert bool(torch.isfinite(values).all())
    assert not values[~mask].any()
    if not method.moves_weights:
        assert torch.equal(values, weight.double() * mask)
    rows, cols = weight.shape
    assert int(mask.sum()) == budget.kept(rows, cols)
    if budget.pattern is not None:
        n, m = budget.pattern
        assert bool((mask.reshape(rows * cols // m, m).sum(1) == n).all())
    elif budget.scope == "row":
        assert bool((mask.sum(1) == round(budget.density * cols)).all())
    return mask, values


@every_method
@every_budget
@pytest.mark.parametrize("groups", [1, 3])
def test_counts_and_values(method, budget, groups, layer):
    case = layer(seed=groups, groups=groups)
    mask, values = check(method, case.moments, case.weight, budget)
    again = method.prune(case.moments, case.weight, budget)
    assert torch.equal(mask, again[0])
    assert torch.equal(values, again[1])


@every_method
@pytest.mark.parametrize("budget", BUDGETS[:5], ids=str)
def test_dead_inputs_and_singular_matrices(method, budget, layer):
    # fewer positions than inputs, two of which never fire
    case = layer(n=5, dead=(0, 9))
    check(method, case.moments, case.weight, budget)
    case = layer(dead=(0, 9))
    mask, _ = check(method, case.moments, case.weight, budget)
    if method.name != "magnitude" and budget.pattern is None and budget.scope == "row":
        assert not mask[:, [0, 9]].any()


@every_method
@pytest.mark.parametrize("budget", BUDGETS[:3], ids=str)
def test_no_input_ever_fires(method, budget, gram):
    weight = torch.arange(32.0).reshape(2, 16)
    check(method, gram(torch.zeros(16, 16)), weight, budget)


@every_method
@pytest.mark.parametrize("budget", BUDGETS[:3], ids=str)
def test_equal_and_zero_weights(method, budget, layer, gram):
    case = layer()
    for weight in (torch.ones(6, 16), torch.zeros(6, 16)):
        check(method, case.moments, weight, budget)
        check(method, gram(torch.eye(16)), weight, budget)


@every_method
@pytest.mark.parametrize("budget", BUDGETS[:3], ids=str)
def test_no_rows(method, budget, layer):
    check(method, layer().moments, torch.zeros(0, 16), budget)


@every_method
def test_all_kept_is_the_dense_layer(method, layer):
    case = layer(groups=2)
    _, values = method.prune(case.moments, case.weight, LayerBudget(1.0))
    # ALPS decides in float32 and its conjugate gradients end at 1e-10
    assert torch.allclose(values, case.weight, atol=1e-7)


@every_method
def test_float32_weights_give_the_same(method, layer):
    case = layer()
    weight = case.weight.float()
    mask, values = method.prune(case.moments, weight, LayerBudget(0.5))
    other = method.prune(case.moments, weight.double(), LayerBudget(0.5))
    assert torch.equal(mask, other[0])
    assert torch.equal(values, other[1])


@every_method
def test_bad_input_is_refused(method, layer):
    case = layer(rows=4, groups=2)
    nan = case.weight.clone()
    nan[1, 2] = float("nan")
    for weight, message in (
        (nan, "1 weights are NaN or infinite"),
        (case.weight[:3], r"shape \(a multiple of 2, 16\), got \(3, 16\)"),
        (case.weight[:, :8], r"got \(4, 8\)"),
    ):
        with pytest.raises(BaselineError, match=message):
            method.prune(case.moments, weight, LayerBudget(0.5))
    with pytest.raises(BaselineError, match="pattern 2:3 does not fit"):
        method.prune(case.moments, case.weight, LayerBudget.of_pattern(2, 3))


def test_the_registry():
    assert list(LAYER_METHODS) == [
        "magnitude", "wanda", "ria", "sparsegpt", "alps", "dsnot", "1-swaps",
    ]  # fmt: skip
    moving = {name for name, m in LAYER_METHODS.items() if m.moves_weights}
    assert moving == {"sparsegpt", "alps"}
    assert all("arXiv:" in m.reference for m in METHODS)
    assert all(m.paper_scope in ("row", "layer") for m in METHODS)


def test_order_of_layer_errors(layer):
    """As published: 1-swaps below Wanda, SparseGPT below both, ALPS below SparseGPT."""
    case = layer(rows=32, cols=64, n=400)

    def error(name):
        m = LAYER_METHODS[name]
        budget = LayerBudget(0.3, scope=m.paper_scope)
        _, values = m.prune(case.moments, case.weight, budget)
        return float(case.moments.gram.error(values, case.weight).sum())

    assert error("magnitude") > error("wanda") > error("1-swaps")
    assert error("wanda") > error("sparsegpt") > error("alps")
