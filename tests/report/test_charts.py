"""Axes with round ticks, places that are right, pictures that say what the mask says."""

from __future__ import annotations

import math
import struct
import zlib

import numpy as np
import pytest

from optiprune.report.charts.plot import PlotArea
from optiprune.report.charts.scale import Scale
from optiprune.report.mask_pictures import picture_of
from optiprune.report.png import encode


def test_a_linear_axis_has_round_ticks_around_the_values() -> None:
    scale = Scale.linear([0.13, 0.87])
    assert (scale.low, scale.high) == pytest.approx((0.0, 1.0))
    assert [label for _, label in scale.ticks] == ["0", "0.2", "0.4", "0.6", "0.8", "1.0"]
    assert scale.place(0.25) == pytest.approx(0.25)


def test_labels_of_an_axis_differ_and_are_what_they_stand_for() -> None:
    scale = Scale.linear([0.00114, 0.00126])
    labels = [label for _, label in scale.ticks]
    assert len(set(labels)) == len(labels)
    assert [float(x) for x in labels] == pytest.approx([v for v, _ in scale.ticks])


@pytest.mark.parametrize("values", [[], [math.nan], [3.0], [0.0, 0.0], [-1e-30, 1e30]])
def test_every_axis_has_a_length(values: list[float]) -> None:
    for scale in (Scale.linear(values), Scale.log(values), Scale.symlog(values, 1.0)):
        assert scale.low < scale.high
        assert scale.ticks
        assert all(math.isfinite(scale.place(v)) for v, _ in scale.ticks)


def test_a_logarithmic_axis() -> None:
    scale = Scale.log([0.02, 3.0])
    assert (scale.low, scale.high) == pytest.approx((0.02, 5.0))
    middle = math.sqrt(0.02 * 5.0)
    assert scale.place(middle) == pytest.approx(0.5)


def test_an_axis_on_both_sides_of_zero_is_odd_and_keeps_the_order() -> None:
    scale = Scale.symlog([-100.0, 100.0], 1.0)
    assert scale.place(0.0) == pytest.approx(0.5)
    # 1 is one unit from zero and 10 two
    one, ten = scale.place(1.0) - 0.5, scale.place(10.0) - 0.5
    assert ten == pytest.approx(2 * one)
    assert scale.place(-10.0) == pytest.approx(0.5 - ten)


def test_marks_lie_where_their_values_are() -> None:
    area = PlotArea(Scale.linear([0.0, 1.0]), Scale.linear([0.0, 1.0]), 296, 160)
    area.dot(0.0, 0.0, 0, "origin")
    area.dot(1.0, 1.0, 0, "far end")
    area.dot(math.nan, 0.5, 0, "nowhere")
    area.line([(0.0, 0.0), (math.nan, 0.5), (1.0, 1.0)], 0)
    plot = area.plot("title", "text", "x", "y")
    left, top, right, bottom = plot.frame
    assert [(d.x, d.y) for d in plot.dots] == [(left, bottom), (right, top)]
    assert plot.lines[0].path == f"M{left} {bottom}M{right} {top}"


def decoded(png: bytes) -> np.ndarray:
    """Levels of a file of `encode`, by the letter of the format."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    at, parts = 8, {}
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, content = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        assert struct.unpack(">I", png[at + 8 + length : at + 12 + length]) == (
            zlib.crc32(kind + content),
        )
        parts[kind] = content
        at += 12 + length
    width, height, depth, colour, *_ = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert (depth, colour, len(parts[b"PLTE"])) == (4, 3, 48)
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, -1)
    assert not rows[:, 0].any()
    levels = np.stack([rows[:, 1:] >> 4, rows[:, 1:] & 15], axis=-1).reshape(height, -1)
    return levels[:, :width]


def test_a_png_holds_what_was_written() -> None:
    levels = np.random.default_rng(0).integers(0, 16, (5, 7)).astype(np.uint8)
    assert np.array_equal(decoded(encode(levels)), levels)


def test_a_png_is_one_to_others() -> None:
    image = pytest.importorskip("PIL.Image")
    import io

    opened = image.open(io.BytesIO(encode(np.array([[0, 15], [15, 0]], np.uint8))))
    assert opened.size == (2, 2)
    assert [opened.convert("RGB").getpixel(p) for p in ((0, 0), (1, 0))] == [
        (247, 251, 255),
        (8, 48, 107),
    ]


def test_a_small_mask_is_shown_weight_by_weight() -> None:
    mask = np.array([[True, False, False], [False, False, False]])
    picture = picture_of(mask, 96)
    assert decoded(picture.png).tolist() == [[15, 0, 0], [0, 0, 0]]
    assert (picture.low, picture.high) == (0.0, 1.0)
    assert (picture.empty_rows, picture.empty_cols) == (1, 2)


def test_a_large_mask_is_shown_as_shares_of_blocks() -> None:
    mask = np.zeros((4, 6), bool)
    mask[:2, :3] = True  # one of four blocks is full
    mask[2, 0] = True  # another has one of six
    picture = picture_of(mask, 2)
    assert (picture.height, picture.width, picture.block) == (2, 2, (2.0, 3.0))
    assert (picture.low, picture.high) == (0.0, 1.0)
    assert decoded(picture.png).tolist() == [[15, 0], [round(15 / 6), 0]]


def test_a_kernel_is_laid_out_in_a_row() -> None:
    picture = picture_of(np.ones((2, 3, 5, 5), bool), 96)
    assert (picture.rows, picture.cols) == (2, 75)


@pytest.mark.parametrize(("rows", "side"), [(97, 96), (100, 7), (5, 3)])
def test_every_weight_is_in_one_pixel(rows: int, side: int) -> None:
    mask = np.zeros((rows, 1), bool)
    mask[-1] = True
    assert decoded(picture_of(mask, side).png)[:, 0].tolist() == [0] * (side - 1) + [15]
