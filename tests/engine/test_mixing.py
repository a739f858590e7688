"""Mixed samples: what they are made of, and that a tuning takes them."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from optiprune import optimize_masks
from optiprune.curvature.data import Batch
from optiprune.engine.mixing import mixed


def rng(seed=0):
    return np.random.default_rng(seed)


def test_floats_become_weighted_means():
    x, y = torch.zeros(200, 3), torch.ones(200, 3)
    out = mixed(Batch(x, torch.arange(200)), Batch(y, None), 1.0, rng())
    assert out.targets is None
    assert out.inputs.dtype == torch.float32
    t = 1 - out.inputs[:, 0]
    torch.testing.assert_close(out.inputs, (1 - t)[:, None].expand(-1, 3))
    assert 0.4 < float(t.mean()) < 0.6
    assert float(t.min()) < 0.05 < 0.95 < float(t.max())


def test_tokens_are_cut_at_one_place_for_all_inputs():
    n, length = 100, 12
    a = {"ids": torch.zeros(n, length, dtype=torch.int64), "mask": torch.zeros(n, length),
         "kind": torch.zeros(n, dtype=torch.int64), "scale": torch.tensor(2.0)}  # fmt: skip
    b = {"ids": torch.ones(n, length, dtype=torch.int64), "mask": torch.ones(n, length),
         "kind": torch.ones(n, dtype=torch.int64), "scale": torch.tensor(3.0)}  # fmt: skip
    out = mixed(Batch(a, None), Batch(b, None), 1.0, rng()).inputs
    assert out["ids"].dtype == torch.int64
    torch.testing.assert_close(out["ids"].float(), out["mask"])
    # first the one and then the other, never back
    assert bool((out["mask"].diff(dim=1) >= 0).all())
    cuts = out["mask"].sum(1)
    assert len(cuts.unique()) > 5
    assert bool((out["kind"] == 0).all())
    assert float(out["scale"]) == 2.0


def test_the_share_says_how_many():
    x, y = torch.zeros(1000, 2), torch.ones(1000, 2)
    for share in (0.0, 0.3):
        out = mixed(Batch(x, None), Batch(y, None), share, rng(1))
        changed = float((out.inputs[:, 0] != 0).float().mean())
        assert abs(changed - share) < 0.05
    torch.testing.assert_close(mixed(Batch(x, None), Batch(y, None), 0.0, rng()).inputs, x)


def test_a_tuning_with_mixed_samples_is_seeded_and_keeps_the_mask():
    def run(mix, data):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(8, 24), nn.ReLU(), nn.Linear(24, 4))
        tune = {"epochs": 3, "mix": mix, "batch": 8, "learning_rate": 0.02}
        # without held-out samples the last pass stays, whatever it did
        config = {"tune": tune, "accept": {"holdout": 0.0}}
        result = optimize_masks(model, data, sparsity=0.8, refit=True, config=config)
        assert bool((model[0].weight[~result.masks["0.weight"]] == 0).all())
        assert result.report.tuning is not None
        assert result.report.tuning.kept > 0
        return model[0].weight.detach()

    data = [torch.randn(512, 8, generator=torch.Generator().manual_seed(1))]
    first = run(0.5, data)
    torch.testing.assert_close(run(0.5, data), first, rtol=0, atol=0)
    assert not torch.equal(run(0.0, data), first)


def test_batches_of_unequal_shapes_are_mixed_within_themselves():
    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.embedding = nn.Embedding(10, 8)
            self.layer = nn.Linear(8, 10)

        def forward(self, ids):
            return self.layer(self.embedding(ids).mean(1))

    data = [
        torch.randint(0, 10, (6, 5)),
        torch.randint(0, 10, (4, 7)),
        torch.randint(0, 10, (5, 3)),
    ]
    result = optimize_masks(
        Mean(), data, sparsity=0.5, refit=True, config={"tune": {"epochs": 2, "mix": 1.0}}
    )
    assert result.report.tuning is not None
    assert len(result.report.tuning.epochs) == 2
