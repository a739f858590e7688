"""Refitted readers do their job at least as well as before, and as least squares says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.curvature import CalibrationSet
from optiprune.shrinking.masking import masked_weights
from optiprune.shrinking.readers import find_readers
from optiprune.shrinking.refit import refit_readers
from optiprune.structure import find_structure

SEED = np.random.SeedSequence(0)


def test_the_last_layer_is_fitted_by_least_squares() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 12), nn.Tanh(), nn.Linear(12, 4)).double().eval()
    x = torch.randn(300, 5, dtype=torch.float64)
    structure = find_structure(model, (x[:2],))
    readers = find_readers(model, structure)
    dense = {k: p.detach() for k, p in model.named_parameters()}
    kept = {0: np.arange(12) % 3 != 0}
    data = CalibrationSet.collect([x], torch.device("cpu"))
    found = refit_readers(model, readers, dense, kept, data, damping=1e-12, seed=SEED)
    h = torch.tanh(model[0](x)).detach()
    left = torch.from_numpy(kept[0])
    want = torch.linalg.lstsq(h[:, left], h @ dense["2.weight"].T).solution.T
    torch.testing.assert_close(found["2.weight"][:, left], want, rtol=1e-6, atol=1e-8)
    assert not found["2.weight"][:, ~left].any()


def test_dead_inputs_and_no_unit_lost() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with torch.no_grad():
        model[0].bias[:4] = -100.0  # never active
    x = torch.randn(50, 5)
    structure = find_structure(model, (x[:2],))
    readers = find_readers(model, structure)
    dense = {k: p.detach() for k, p in model.named_parameters()}
    data = CalibrationSet.collect([x], torch.device("cpu"))

    def error(weights: dict[str, Tensor]) -> float:
        with torch.no_grad():
            out = torch.func.functional_call(model, weights, (x,))
            return float(((out - model(x)) ** 2).mean())

    for gone in ([0, 5], [4], []):
        kept = {0: ~np.isin(np.arange(8), gone)}
        found = refit_readers(model, readers, dense, kept, data, damping=1e-3, seed=SEED)
        assert all(bool(torch.isfinite(w).all()) for w in found.values())
        assert error(found) <= error(masked_weights(readers.readers, dense, kept)) + 1e-9


def test_few_samples_are_not_learnt_by_heart() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(30, 100), nn.ReLU(), nn.Linear(100, 5)).eval()
    few, many = torch.randn(70, 30), torch.randn(5000, 30)
    structure = find_structure(model, (few[:2],))
    readers = find_readers(model, structure)
    dense = {k: p.detach() for k, p in model.named_parameters()}
    kept = {0: np.arange(100) % 5 != 0}

    def error(samples: Tensor, damping: float) -> float:
        data = CalibrationSet.collect([samples], torch.device("cpu"))
        found = refit_readers(model, readers, dense, kept, data, damping=damping, seed=SEED)
        with torch.no_grad():
            out = torch.func.functional_call(model, found, (many,))
            return float(((out - model(many)) ** 2).mean())

    masked = masked_weights(readers.readers, dense, kept)
    with torch.no_grad():
        before = torch.func.functional_call(model, masked, (many,)) - model(many)
    # no worse than leaving the weights as they are
    assert error(few, 1e-3) < 1.02 * float((before**2).mean())
    assert error(many, 1e-3) < 0.7 * float((before**2).mean())
