"""Masks of whole blocks, end to end."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune import optimize_masks
from optiprune.config import Config, ConfigError
from optiprune.engine.block_search import whole_blocks, within_blocks
from optiprune.engine.errors import BudgetError
from optiprune.patterns import Block


def network(seed=0):
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(16, 24), nn.ReLU(), nn.Linear(24, 16), nn.ReLU(),
                          nn.Linear(16, 8))  # fmt: skip
    return model, torch.randn(400, 16) @ torch.randn(16, 16) / 4


def pruned(pattern, config=None, **options):
    model, data = network()
    result = optimize_masks(
        model, [data], pattern=pattern, config=config, **{"sparsity": 0.5, **options}
    )
    return model, result


def total(result, refit):
    return sum(r.error_refit if refit else r.error_masked for r in result.report.layers)


@pytest.mark.parametrize("refit", [True, False])
@pytest.mark.parametrize("pattern", ["block:1x8", "block:4", "block:4x4", "block:8x2"])
def test_tiles_stay_whole_and_the_search_pays(pattern, refit):
    config = {"joint": {"sweeps": 0, "start": "initial"}} if refit else {"batches": {"sweeps": 0}}
    _, first = pruned(pattern, config, refit=refit)
    model, result = pruned(pattern, refit=refit)
    for name, mask in result.masks.items():
        assert mask.sum() == mask.numel() // 2
        assert not model.get_parameter(name).detach()[~mask].any()
    result.masks.check_pattern(pattern)
    assert result.report.layers[0].name == "0"

    def layer(r):
        return r.report.layers[0].error_refit if refit else r.report.layers[0].error_masked

    # the first layer sees the same inputs in both
    assert layer(result) < layer(first)


def test_scope_row_holds_in_every_row_of_tiles():
    _, result = pruned("block:4x4", {"prune": {"scope": "row"}})
    for mask in result.masks.values():
        counts = mask.reshape(mask.shape[0] // 4, -1).sum(1)
        assert len(set(counts.tolist())) == 1


def test_promises_are_kept_with_and_without_refit():
    base = {"accept": {"holdout": 0.0}, "refit": {"damping": 1e-8}}
    for refit, none in ((True, {"joint": {"sweeps": 0}}), (False, {"batches": {"sweeps": 0}})):
        _, start = pruned("block:2x4", {**base, **none}, refit=refit)
        _, result = pruned("block:2x4", base, refit=refit)
        promised = sum(r.predicted for r in result.history if r.layers == ("0",))
        errors = [
            r.report.layers[0].error_refit if refit else r.report.layers[0].error_masked
            for r in (start, result)
        ]
        assert errors[1] - errors[0] == pytest.approx(promised, rel=1e-4)


def test_the_masks_do_not_depend_on_the_number_of_workers():
    for refit in (True, False):
        one = pruned("block:2x4", {"workers": 1}, refit=refit)[1]
        two = pruned("block:2x4", {"workers": 2}, refit=refit)[1]
        assert one.masks == two.masks


def test_an_own_sparsity_keeps_to_the_tiles():
    _, result = pruned("block:1x8", {"layers": {"sparsity": {"0": 0.75}}})
    result.masks.check_pattern("block:1x8")
    assert result.masks["0.weight"].double().mean() == 0.25
    assert result.masks["4.weight"].double().mean() == 0.5


def test_convolutions_take_tiles_of_their_unfolded_rows():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2))
    data = torch.randn(60, 4, 9, 9)
    result = optimize_masks(model, [data], sparsity=0.5, pattern="block:2x9")
    result.masks.check_pattern("block:2x9")


def test_what_is_not_zero_is_kept():
    model, data = network()
    with torch.no_grad():
        for layer in (model[0], model[2], model[4]):
            layer.weight[:, 8:] = 0.0
            layer.weight[::2, 3] = 0.0
    result = optimize_masks(
        model,
        [data],
        sparsity=0.4,
        pattern="block:1x8",
        config={
            "initial": {"method": "nonzero"},
            "joint": {"sweeps": 0, "start": "initial"},
        },
    )
    result.masks.check_pattern("block:1x8")
    for mask in result.masks.values():
        assert mask[:, :8].all()


def test_what_does_not_fit_is_refused():
    with pytest.raises(BudgetError, match=r"layer '0' has 24 rows .* tiles of 1 x 5 do not fill"):
        pruned("block:5")
    with pytest.raises(ConfigError, match="needs objective = 'reconstruction'"):
        pruned("block:4", objective="global")
    with pytest.raises(ConfigError, match="scope = 'layer' or 'row'"):
        pruned("block:4", {"prune": {"scope": "global"}})
    for text in ("block:1x1", "block:0x4", "block", "2x4"):
        with pytest.raises(ConfigError):
            Config.from_table({"prune": {"pattern": text}})


def test_row_balanced_is_another_name_for_scope_row():
    assert Config.from_table({"prune": {"pattern": "row-balanced"}}) == Config.from_table(
        {"prune": {"scope": "row"}}
    )
    with pytest.raises(ConfigError, match="'row-balanced' is scope = 'row', but scope = 'layer'"):
        Config.from_table({"prune": {"pattern": "row-balanced", "scope": "layer"}})


def test_scores_of_tiles():
    score = np.array([[1.0, 2.0, 0.0, 0.0], [0.0, 0.0, 3.0, 0.0]])
    ranks = whole_blocks(score.reshape(-1), 2, 4, Block(1, 2)).reshape(2, 4)
    np.testing.assert_array_equal(ranks, [[1, 1, 0, 0], [-1, -1, 2, 2]])
    # squares of 1e300 would overflow
    assert np.isfinite(whole_blocks(np.array([1e300, 1.0, 0.0, 0.0]), 1, 4, Block(1, 2))).all()


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 4), st.booleans())
def test_the_tiles_of_the_largest_norms(seed, height, width, by_band):
    g = torch.Generator().manual_seed(seed)
    score = torch.rand(3 * height, 4 * width, generator=g)
    tiles = torch.rand(3, 4, generator=g) < 0.5
    like = tiles.repeat_interleave(height, 0).repeat_interleave(width, 1)
    chosen = within_blocks(score, like, by_band, Block(height, width))
    norms = torch.stack(
        [
            torch.stack([part.square().sum() for part in band.split(width, 1)])
            for band in score.split(height, 0)
        ]
    )
    got = chosen[::height, ::width]
    assert torch.equal(got.repeat_interleave(height, 0).repeat_interleave(width, 1), chosen)
    parts = zip(norms, got, tiles, strict=True) if by_band else [(norms, got, tiles)]
    for norm, mine, before in parts:
        assert mine.sum() == before.sum()
        if mine.any() and not mine.all():
            assert norm[mine].min() >= norm[~mine].max() - 1e-6
