"""End to end: the function stays, more is kept, and it can be taken back."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from coupled_networks import Attention, Gated, Residual, Scaled, conv_net, mlp, randomised
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import optiprune
from optiprune import permute_channels
from optiprune.curvature import CalibrationError, CalibrationSet, LayerError, find_layers
from optiprune.curvature.gram import input_norms, wanda_scores
from optiprune.patterns import PatternError
from optiprune.permutation import permute
from optiprune.permutation.coupling import Coupling, Group

CASES = {
    "mlp": (mlp, (12,), ()),
    "conv": (conv_net, (4, 6, 6), ("3",)),
    "gated": (Gated, (3, 12), ()),
    "residual": (Residual, (4, 6, 6), ()),
    "scaled": (Scaled, (4, 6, 6), ()),
    "one head": (lambda: Attention(1), (5, 16), ()),
}


def data(shape, n=40, seed=0):
    return torch.randn(n, *shape, generator=torch.Generator().manual_seed(seed))


def kept_share(model, x, name, n, m):
    """Share of the squared Wanda scores of a layer that the pattern keeps, counted in torch."""
    (layer,) = find_layers(model, include=[name])
    norms = input_norms(model, [layer], CalibrationSet.collect([x], x.device))
    score = wanda_scores(layer, model.get_parameter(layer.parameter), norms[name]).square()
    groups = score.reshape(-1, m)
    return float(groups.topk(n, dim=1).values.sum() / groups.sum())


@pytest.mark.parametrize("pattern", ["2:4", "1:4", "1:2"])
@pytest.mark.parametrize("name", list(CASES))
def test_the_function_stays_and_the_pattern_keeps_more(name, pattern):
    make, shape, exclude = CASES[name]
    model, x = randomised(make()), data(shape)
    dense, before = copy.deepcopy(model), model(x)
    report = permute_channels(model, [x], pattern=pattern, exclude=exclude)
    assert report.groups
    assert report.change < 1e-5
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)
    n, m = map(int, pattern.split(":"))
    for g in report.groups:
        assert g.after >= g.before
        for net, share in ((dense, g.before), (model, g.after)):
            shares = [kept_share(net, x, c, n, m) for c in g.consumers]
            assert np.mean(shares) == pytest.approx(share, rel=1e-5)
    assert any(g.after > g.before + 1e-3 for g in report.groups)
    moved = [n for n, p in model.named_parameters() if not torch.equal(p, dense.get_parameter(n))]
    assert moved
    report.undo()
    for key, value in model.state_dict().items():
        assert torch.equal(value, dense.state_dict()[key]), key
    with pytest.raises(RuntimeError, match="undone before"):
        report.undo()


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 2**31), st.sampled_from(["2:4", "3:4", "4:8"]))
def test_random_networks_keep_their_function_and_lose_no_score(seed, pattern):
    model = randomised(nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 8)), seed % 1000)
    x = data((8,), seed=seed)
    before = model(x)
    report = permute_channels(model, [x], pattern=pattern, seed=seed)
    (group,) = report.groups
    assert group.after >= group.before
    assert group.after == pytest.approx(
        kept_share(model, x, "2", *map(int, pattern.split(":"))), rel=1e-6
    )
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_heads_of_attention_are_left_out_by_what_they_compute():
    model, x = randomised(Attention(4)), data((5, 16))
    state = copy.deepcopy(model.state_dict())
    report = permute_channels(model, [x])
    assert report.groups == ()
    assert set(report.left_out) == {"q_proj", "k_proj", "v_proj", "o_proj"}
    assert report.left_out["q_proj"].startswith("the output channels of no Linear or Conv2d")
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    report.undo()


def test_a_sum_with_the_models_input_is_left_out():
    class Adds(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.second(x + torch.relu(self.first(x)))

    report = permute_channels(randomised(Adds()), [data((16,))])
    assert report.groups == ()
    assert "another order of its channels changes the outputs" in report.left_out["second"]


def test_a_group_that_changes_the_outputs_is_taken_back_and_the_others_stay(monkeypatch):
    model, x = randomised(mlp()), data((12,))
    state, before = copy.deepcopy(model.state_dict()), model(x)
    # columns of a layer that reads the model's input: only the old order is right
    wrong, right = Group(12, (), {"0": 1}, {}), Group(24, ("2",), {"4": 1}, {})
    monkeypatch.setattr(permute, "_tried", lambda model, groups, *_: (groups, []))
    monkeypatch.setattr(permute, "find_groups", lambda *_: Coupling((wrong, right), {}))
    report = permute_channels(model, [x])
    assert [g.producers for g in report.groups] == [("2",)]
    assert "changes the outputs" in report.left_out["0"]
    assert torch.equal(model[0].weight, state["0.weight"])
    assert not torch.equal(model[4].weight, state["4.weight"])
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_layers_that_are_not_pruned_are_reordered_along_but_do_not_count():
    model, x = randomised(Residual()), data((4, 6, 6))
    before = model(x)
    report = permute_channels(model, [x], include=["head", "second.0"])
    assert [g.producers[0] for g in report.groups] == ["stem", "first.0"]
    assert report.groups[0].consumers == ("first.0", "first.1", "head")
    assert report.groups[0].after == pytest.approx(kept_share(model, x, "head", 2, 4), rel=1e-5)
    assert report.left_out == {}
    torch.testing.assert_close(model(x), before, rtol=1e-5, atol=1e-5)


def test_undo_moves_what_was_done_in_between():
    model, x = randomised(mlp()), data((12,))
    report = permute_channels(model, [x])
    optiprune.optimize_masks(
        model, [x], pattern="2:4", refit=False, objective="reconstruction",
        config={"batches": {"sweeps": 0}, "threads": 1},
    )  # fmt: skip
    pruned = model(x)
    report.undo()
    torch.testing.assert_close(model(x), pruned, rtol=1e-5, atol=1e-5)


def test_undo_of_another_model_writes_nothing():
    model, x = randomised(mlp()), data((12,))
    report = permute_channels(model, [x])
    model[4] = nn.Linear(20, 4)
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(RuntimeError, match="nothing was written"):
        report.undo()
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_parameters_keep_their_identity_modes_and_gradients():
    model, x = randomised(conv_net()).train(), data((4, 6, 6))
    parameters, rng = list(model.parameters()), torch.get_rng_state()
    permute_channels(model, [x], exclude=["3"])
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))
    assert all(m.training for m in model.modules())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), rng)


def test_the_same_seed_gives_the_same_model():
    states = []
    for _ in range(2):
        model = randomised(mlp())
        permute_channels(model, [data((12,))], restarts=2, seed=5)
        states.append(model.state_dict())
    assert all(torch.equal(v, states[1][k]) for k, v in states[0].items())


def test_nothing_to_reorder_is_a_report_without_groups():
    model, x = randomised(nn.Sequential(nn.Linear(12, 4))), data((12,))
    report = permute_channels(model, x)
    assert report.groups == ()
    assert report.change == 0.0
    assert list(report.left_out) == ["0"]
    report.undo()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"pattern": "unstructured"}, PatternError, "N:M such as '2:4' alone"),
        ({"pattern": "4:2"}, PatternError, "0 < N < M"),
        ({"pattern": "block:1x4"}, PatternError, "got 'block:1x4'"),
        ({"pattern": "2:5"}, LayerError, "layer '0' has 12 weights a row, which groups of 5"),
        ({"include": ["nothing"]}, LayerError, "matches no layer"),
        ({"restarts": -1}, ValueError, "restarts must be 0 or more, got -1"),
        ({"samples": 0}, ValueError, "samples must be 1 or more, got 0"),
        ({"tolerance": 0.0}, ValueError, r"tolerance must be above 0, got 0\.0"),
        ({"seed": -1}, ValueError, "seed must be 0 or more, got -1"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(options, error, message):
    model = randomised(mlp())
    state = copy.deepcopy(model.state_dict())
    with pytest.raises(error, match=message):
        permute_channels(model, [data((12,))], **options)
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())


def test_weights_and_outputs_that_cannot_be_compared_are_refused():
    x = data((12,))
    model = randomised(mlp())
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    with pytest.raises(LayerError, match="layer '2' has 1 weights that are NaN"):
        permute_channels(model, [x])
    with pytest.raises(CalibrationError, match="outputs hold NaN or infinite"):
        permute_channels(model, [x], exclude=["2"])
    with pytest.raises(LayerError, match=r"torch\.bfloat16.*model\.float\(\)"):
        permute_channels(randomised(mlp()).bfloat16(), [x.bfloat16()])

    class Classes(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, x):
            return self.net(x).argmax(1)

    with pytest.raises(CalibrationError, match="no tensor of floats"):
        permute_channels(randomised(Classes()), [x])
    with pytest.raises(CalibrationError, match="no calibration data"):
        permute_channels(randomised(mlp()), [])


def test_a_mapping_of_outputs_and_inputs_by_name():
    class Named(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = mlp()

        def forward(self, *, x):
            return {"logits": self.net(x), "length": len(x)}

    model, x = randomised(Named()), data((12,))
    before = model(x=x)["logits"]
    report = permute_channels(model, [{"x": x}])
    assert len(report.groups) == 2
    torch.testing.assert_close(model(x=x)["logits"], before, rtol=1e-5, atol=1e-5)
