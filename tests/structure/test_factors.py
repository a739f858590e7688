"""Units of a tensor's elements move as the elements do: against torch on tensors of units."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.structure.factors import Factor, Labels, ReshapeError, joined
from optiprune.structure.units import FIXED


def dense(x: Labels) -> torch.Tensor:
    """One number for the units of every element: of all factors, 1000 to a power apart."""
    out = torch.zeros(x.shape, dtype=torch.int64)
    for i, f in enumerate(sorted(x.factors, key=lambda f: int(f.ids.max(initial=0)))):
        shape = [x.shape[d] if d in f.dims else 1 for d in range(x.ndim)]
        out = out + 1000**i * torch.from_numpy(f.ids.copy()).reshape(shape)
    return out


def one_factor(shape: tuple[int, ...], dims: tuple[int, ...]) -> Labels:
    span = tuple(shape[d] for d in dims)
    ids = np.arange(1, 1 + math.prod(span), dtype=np.int64).reshape(span)
    return Labels(shape, (Factor(dims, ids),))


@st.composite
def labelled(draw: st.DrawFn) -> Labels:
    shape = tuple(draw(st.lists(st.integers(1, 4), min_size=1, max_size=4)))
    dims = tuple(
        sorted(draw(st.sets(st.integers(0, len(shape) - 1), min_size=1, max_size=len(shape))))
    )
    return one_factor(shape, dims)


@given(labelled(), st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_permuted(x: Labels, random) -> None:
    order = list(range(x.ndim))
    random.shuffle(order)
    assert torch.equal(dense(x.permuted(order)), dense(x).permute(order))


@given(labelled(), st.data())
@settings(max_examples=200, deadline=None)
def test_reshaped(x: Labels, data: st.DataObject) -> None:
    left, shape = math.prod(x.shape), []
    while left > 1:
        n = data.draw(st.sampled_from([d for d in range(1, left + 1) if left % d == 0]))
        shape.append(n)
        left //= n
        if len(shape) > 5:
            shape.append(left)
            left = 1
    out = x.reshaped(shape)
    assert out.shape == tuple(shape)
    assert torch.equal(dense(out), dense(x).reshape(shape))


@given(labelled(), st.data())
@settings(max_examples=100, deadline=None)
def test_taken_sliced_inserted_and_joined(x: Labels, data: st.DataObject) -> None:
    dim = data.draw(st.integers(0, x.ndim - 1))
    index = data.draw(st.integers(0, x.shape[dim] - 1))
    t = dense(x)
    if x.factors[0].dims != (dim,):
        assert torch.equal(dense(x.taken(dim, index)), t.select(dim, index))
    rest = t.narrow(dim, index, x.shape[dim] - index)
    assert torch.equal(dense(x.sliced(dim, slice(index, None))), rest)
    assert torch.equal(dense(x.sliced(dim, slice(None, None, -1))), t.flip(dim))
    assert torch.equal(dense(x.inserted(dim)), t.unsqueeze(dim))
    if x.at(dim) is not None:
        assert torch.equal(dense(joined([x, x], dim)), torch.cat([t, t], dim))


@given(labelled(), st.integers(1, 3))
@settings(max_examples=50, deadline=None)
def test_broadcast_along_what_is_new(x: Labels, more: int) -> None:
    shape = (more, *x.shape)
    assert torch.equal(dense(x.broadcast(shape)), dense(x).expand(shape))


def test_flattening_gives_every_place_its_channels_unit_and_back() -> None:
    x = one_factor((2, 3, 2, 2), (1,))
    flat = x.reshaped((2, 12))
    assert flat.factors[0].ids.tolist() == [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3]
    back = flat.reshaped((2, 3, 2, 2))
    assert back.factors[0].dims == (1,)
    assert back.factors[0].ids.tolist() == [1, 2, 3]


def test_a_split_width_has_units_over_two_dimensions() -> None:
    heads = one_factor((2, 5, 12), (2,)).reshaped((2, 5, 3, 4))
    assert heads.factors[0].dims == (2, 3)
    assert heads.permuted((0, 2, 1, 3)).factors[0].dims == (1, 3)


def test_a_batch_merged_with_heads_comes_apart_again() -> None:
    q = one_factor((5, 2 * 3, 4), (1, 2))  # (time, batch x heads, width), as some programs view it
    ids = np.tile(np.arange(1, 13).reshape(3, 4), (2, 1))
    q = Labels(q.shape, (Factor((1, 2), ids),))
    out = q.permuted((1, 0, 2)).reshaped((2, 3, 5, 4))
    assert out.factors[0].dims == (1, 3)
    assert out.factors[0].ids.tolist() == np.arange(1, 13).reshape(3, 4).tolist()


def test_two_kinds_of_units_cannot_share_a_dimension() -> None:
    both = Labels((2, 3), (Factor((0,), np.array([1, 2])), Factor((1,), np.array([3, 4, 5]))))
    with pytest.raises(ReshapeError, match="two kinds"):
        both.reshaped((6,))
    assert both.reshaped((2, 3, 1)).shape == (2, 3, 1)


def test_a_part_of_a_cat_without_units_is_fixed() -> None:
    x = joined([one_factor((2, 3), (1,)), Labels((2, 2))], 1)
    assert x.factors[0].ids.tolist() == [1, 2, 3, FIXED, FIXED]
    with pytest.raises(ReshapeError, match="over"):
        joined([one_factor((2, 3), (1,)), one_factor((2, 3), (0, 1))], 1)
