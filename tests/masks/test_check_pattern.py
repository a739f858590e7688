"""The pattern check names the place."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from optiprune.masks import MaskError, MaskSet, check_pattern


def two_of_four(rows=4, cols=16):
    return torch.tensor([1, 0, 1, 0], dtype=torch.bool).repeat(rows, cols // 4)


def test_masks_that_keep_to_it_pass():
    masks = MaskSet({"a": two_of_four(), "conv": two_of_four(4, 36).reshape(4, 4, 3, 3)})
    masks.check_pattern("2:4", exactly=True)
    masks.check_pattern("4:8", ["a"])
    masks.check_pattern("2:4", ["a"])
    MaskSet({"a": torch.zeros(4, 8, dtype=torch.bool)}).check_pattern("2:4")


def test_the_first_place_is_named():
    mask = two_of_four()
    mask[2, 9] = True
    with pytest.raises(MaskError, match=r"'a' is not 2:4: row 2, group 2 \(columns 8 to 11\) keeps 3 of 4; 1 of 16"):  # fmt: skip  # noqa: E501
        MaskSet({"ok": two_of_four(), "a": mask}).check_pattern("2:4")
    MaskSet({"ok": two_of_four(), "a": mask}).check_pattern("2:4", ["ok"])
    with pytest.raises(MaskError, match=r"row 0, group 0 .* keeps 0 of 4"):
        check_pattern({"a": torch.zeros(4, 8, dtype=torch.bool)}, "2:4", exactly=True)


def test_the_first_tile_is_named():
    mask = torch.zeros(4, 8, dtype=torch.bool)
    mask[2:4, 4:8] = True
    check_pattern({"a": mask}, "block:2x4")
    check_pattern({"a": mask}, "block:4")
    mask[3, 7] = False
    with pytest.raises(MaskError, match="not block:2x4: the tile at row 2, column 4 keeps 7 of 8"):
        check_pattern({"a": mask}, "block:2x4")


@pytest.mark.parametrize(
    ("shape", "pattern", "message"),
    [
        ((4, 6), "2:4", "6 weights a row, which is no multiple of 4"),
        ((4, 6), "block:3x2", "4 x 6, which tiles of 3 x 2 do not fill"),
        ((4, 8), "unstructured", "no pattern to check"),
        ((4, 8), "2-4", "pattern must be"),
        ((8,), "2:4", "1 dimensions"),
    ],
)
def test_what_cannot_be_checked_is_refused(shape, pattern, message):
    with pytest.raises(MaskError, match=message):
        check_pattern({"a": torch.ones(shape, dtype=torch.bool)}, pattern)


def test_unknown_names_are_refused():
    with pytest.raises(MaskError, match="b"):
        MaskSet({"a": two_of_four()}).check_pattern("2:4", ["b"])


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(2, 6), st.data())
def test_it_agrees_with_counting(seed, rows, m, data):
    n = data.draw(st.integers(1, m - 1))
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, 3 * m, generator=g) < data.draw(st.floats(0, 1))
    fine = all(int(mask[r, a : a + m].sum()) <= n for r in range(rows) for a in range(0, 3 * m, m))
    if fine:
        check_pattern({"a": mask}, f"{n}:{m}")
    else:
        with pytest.raises(MaskError):
            check_pattern({"a": mask}, f"{n}:{m}")
