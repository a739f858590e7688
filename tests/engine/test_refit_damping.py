"""`refit.damping = "auto"`: chosen on samples apart, then all samples are fitted."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from optiprune import optimize_masks
from optiprune.config import Config, ConfigError
from optiprune.curvature import CalibrationSet
from optiprune.curvature.gram import LayerGram, pooled
from optiprune.engine.damping import CANDIDATES, FALLBACK, choose_damping, fold
from optiprune.refit import refit_rows

CPU = torch.device("cpu")
SEED = np.random.SeedSequence(0)
AUTO = Config()


def gram_of(x, y=None):
    n = len(x)
    H = (x.T @ x / n)[None]
    mean = x.mean(0)[None]
    if y is None:
        return LayerGram(H, H, H, n, mean)
    return LayerGram(H, (x.T @ y / n)[None], (y.T @ y / n)[None], n, mean)


def rand(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("same", [True, False])
def test_pooled_moments_are_those_of_all_positions(same):
    x = rand(50, 6)
    y = None if same else x + rand(50, 6, seed=1)
    parts = [gram_of(x[s], None if y is None else y[s]) for s in (slice(37), slice(37, 50))]
    both, whole = pooled(*parts), gram_of(x, y)
    assert both.n == 50
    assert both.same_inputs == same
    for name in ("H", "C", "D", "mean"):
        torch.testing.assert_close(getattr(both, name), getattr(whole, name))


def layer(n, cols=60, rows=40):
    mix = rand(cols, cols, seed=5) / cols**0.5
    w = rand(rows, cols, seed=6)
    kept = rand(rows, cols, seed=7) > 0
    inputs = [rand(k, cols, seed=8 + i) @ mix for i, k in enumerate((n, max(1, n // 4), 20_000))]
    return w, kept, [gram_of(x) for x in inputs]


def unseen_error(w, kept, gram, test, damping):
    masked = torch.where(kept, w, 0.0)
    fit = refit_rows(gram.H, gram.cross(w), gram.target_energy(w), kept, masked, damping)
    return float(test.error(fit.values, w).sum())


def test_few_positions_ask_for_more_damping_and_many_for_less():
    chosen = {}
    for n in (70, 50_000):
        w, kept, (fit, judge, test) = layer(n)
        whole, chosen[n] = choose_damping([fit, judge], w, kept, AUTO)
        assert whole.n == fit.n + judge.n
        # on data that neither part has seen it is about as good as the best of the candidates
        best = min(unseen_error(w, kept, whole, test, c) for c in CANDIDATES)
        assert unseen_error(w, kept, whole, test, chosen[n]) <= 1.05 * best
    assert chosen[70] >= 0.03
    assert chosen[50_000] <= 1e-3


def test_a_given_damping_is_taken_and_nothing_set_apart():
    data = CalibrationSet.collect([torch.randn(10, 3)], CPU)
    given = Config.from_table({"refit": {"damping": 0.5}})
    assert len(fold(data, given, SEED)) == 1
    w, kept, grams = layer(50)
    whole, damping = choose_damping(grams[:1], w, kept, given)
    assert damping == 0.5
    assert whole is grams[0]


def test_one_sample_cannot_be_parted():
    data = CalibrationSet.collect([torch.randn(1, 3)], CPU)
    assert len(fold(data, AUTO, SEED)) == 1
    w, kept, grams = layer(50)
    assert choose_damping(grams[:1], w, kept, AUTO)[1] == FALLBACK


def test_masks_alone_use_all_samples_at_once():
    data = CalibrationSet.collect([torch.randn(10, 3)], CPU)
    assert len(fold(data, Config.from_table({"prune": {"refit": False}}), SEED)) == 1


@pytest.mark.parametrize("value", [-1.0, "often", float("nan")])
def test_other_values_are_refused(value):
    with pytest.raises(ConfigError, match=r"refit\.damping"):
        Config.from_table({"refit": {"damping": value}})


@pytest.mark.parametrize("objective", ["reconstruction", "global"])
def test_a_run_reports_what_it_chose(objective):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    data = [(torch.randn(80, 12), torch.randint(0, 4, (80,)))]
    result = optimize_masks(
        model,
        data,
        sparsity=0.5,
        objective=objective,
        refit=True,
        config={"batches": {"steps": 0}, "accept": {"holdout": 0.0}},
    )
    for row in result.report.layers:
        assert row.damping in CANDIDATES
        assert row.error_refit is not None
        assert row.error_masked is not None
        assert row.error_refit <= row.error_masked


def test_convolution_groups_are_all_asked():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(8, 16, 3, groups=4), nn.ReLU())
    result = optimize_masks(
        model, [torch.randn(12, 8, 6, 6)], sparsity=0.5, objective="reconstruction", refit=True
    )
    assert result.report.layers[0].damping in CANDIDATES
