"""MaskSet by itself: construction, counts, set operations."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from optiprune.masks import MaskCount, MaskError, MaskSet

T, F = True, False


def two() -> tuple[MaskSet, MaskSet]:
    a = MaskSet({"w": torch.tensor([[T, T], [F, F]]), "v": torch.tensor([T, F, T])})
    b = MaskSet({"w": torch.tensor([[T, F], [T, F]]), "v": torch.tensor([F, F, T])})
    return a, b


def test_counts_by_hand():
    a, b = two()
    assert (a.count(), a.total(), a.density()) == (4, 7, 4 / 7)
    assert b.count() == 3
    assert a.per_parameter() == [MaskCount("w", (2, 2), 2, 4), MaskCount("v", (3,), 2, 3)]
    assert [c.sparsity for c in a.per_parameter()] == [0.5, pytest.approx(1 / 3)]
    assert list(a) == ["w", "v"]
    assert len(a) == 2
    assert repr(a) == "MaskSet(2 parameters, 4 of 7 kept, density 0.5714)"


def test_set_operations_by_hand():
    a, b = two()
    assert a.intersect(b)["w"].tolist() == [[T, F], [F, F]]
    assert a.intersect(b)["v"].tolist() == [F, F, T]
    assert a.union(b)["w"].tolist() == [[T, T], [T, F]]
    assert a.difference(b)["w"].tolist() == [[F, T], [F, F]]
    assert a.invert()["v"].tolist() == [F, T, F]
    assert a.hamming(b) == 3
    assert a.hamming(a) == 0


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 20), st.integers(0, 2**31 - 1))
def test_set_identities(n, seed):
    g = torch.Generator().manual_seed(seed)
    a, b = (MaskSet({"w": torch.rand(n, generator=g) < 0.5}) for _ in range(2))
    both, either = a.intersect(b), a.union(b)
    assert both.count() + either.count() == a.count() + b.count()
    assert a.hamming(b) == either.count() - both.count()
    assert a.difference(b) == a.intersect(b.invert())
    assert a.invert().invert() == a


def test_equality_ignores_order_not_content():
    a, b = two()
    assert a == MaskSet({"v": a["v"], "w": a["w"]})
    assert a != b
    assert a != MaskSet({"w": a["w"]})
    assert a != MaskSet({"w": a["w"].reshape(4), "v": a["v"]})
    assert a != "masks"


def test_masks_are_copied_in():
    m = torch.tensor([T, F])
    s = MaskSet({"w": m})
    m[1] = True
    assert s["w"].tolist() == [T, F]


def test_nothing_kept_and_nothing_there():
    assert MaskSet({"w": torch.zeros(3, 2, dtype=torch.bool)}).density() == 0.0
    empty = MaskSet({"w": torch.zeros(0, 5, dtype=torch.bool)})
    assert (empty.total(), empty.density(), empty.per_parameter()[0].density) == (0, 1.0, 1.0)


@pytest.mark.parametrize(
    ("masks", "message"),
    [
        ({}, "at least one parameter"),
        ({"w": torch.ones(2)}, r"'w' must be bool .* got torch.float32"),
        ({"w": [True]}, "'w' must be a bool tensor, got list"),
        ({3: torch.ones(2, dtype=torch.bool)}, "got 3"),
        ({"w": torch.ones(2, dtype=torch.bool, device="meta")}, "meta device"),
    ],
)
def test_refused_masks(masks, message):
    with pytest.raises(MaskError, match=message):
        MaskSet(masks)


@pytest.mark.parametrize(
    ("fitted", "message"),
    [
        ({"x": torch.ones(2)}, "for 'x', but no mask"),
        ({"w": torch.ones(3)}, r"shape \(3,\), its mask has \(2,\)"),
        ({"w": torch.ones(2, dtype=torch.int64)}, "floating-point"),
        ({"w": torch.tensor([float("nan"), 0.0])}, r"1 NaN and 0 infinite .* index \(0,\)"),
    ],
)
def test_refused_fitted_weights(fitted, message):
    with pytest.raises(MaskError, match=message):
        MaskSet({"w": torch.tensor([T, F])}, fitted=fitted)


def test_fitted_weights_count_where_kept_only():
    s = MaskSet({"w": torch.tensor([T, F])}, fitted={"w": torch.tensor([2.0, float("nan")])})
    assert s.fitted["w"].tolist() == [2.0, 0.0]
    assert not s.intersect(s).fitted
    assert not s.with_fitted({}).fitted
    with pytest.raises(TypeError):
        s.fitted["w"] = torch.ones(2)  # type: ignore[index]


def test_operations_refuse_other_parameters():
    a, _ = two()
    with pytest.raises(MaskError, match="'v' is in one only"):
        a.union(MaskSet({"w": a["w"]}))
    with pytest.raises(MaskError, match=r"'w' have shapes \(2, 2\) and \(4,\)"):
        a.union(MaskSet({"w": a["w"].reshape(4), "v": a["v"]}))


def test_hashes_survive_only_between_sets_of_one_model():
    m = torch.tensor([T, F])
    a, b = MaskSet({"w": m}, hashes={"w": "aa"}), MaskSet({"w": m}, hashes={"w": "bb"})
    assert dict(a.intersect(a).hashes) == {"w": "aa"}
    assert dict(a.intersect(b).hashes) == {}
    assert dict(a.with_hashes({"w": "cc"}).hashes) == {"w": "cc"}
    with pytest.raises(MaskError, match="hash for 'x'"):
        MaskSet({"w": m}, hashes={"x": "aa"})


def test_from_model_keeps_what_is_non_zero():
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.Flatten(), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight[0] = 0
        model[2].weight.copy_(torch.tensor([[0.0, -1.0], [float(2**-140), -0.0]]))
    s = MaskSet.from_model(model)
    assert list(s) == ["0.weight", "2.weight"]
    assert s["0.weight"].tolist() == [[[[F, F], [F, F]]], [[[T, T], [T, T]]]]
    assert s["2.weight"].tolist() == [[F, T], [T, F]]
    assert list(MaskSet.from_model(model, ["2.bias"])) == ["2.bias"]
    with pytest.raises(MaskError, match=r"no parameter '2.wieght'; did you mean '2.weight'"):
        MaskSet.from_model(model, ["2.wieght"])
    with pytest.raises(MaskError, match="BatchNorm1d has no weight"):
        MaskSet.from_model(nn.BatchNorm1d(3))


def test_to_moves_masks_and_fitted_weights():
    s = MaskSet({"w": torch.tensor([T, F])}, fitted={"w": torch.ones(2)}, hashes={"w": "aa"})
    moved = s.to("cpu")
    assert moved == s
    assert dict(moved.hashes) == {"w": "aa"}
    assert moved.fitted["w"].device.type == "cpu"
