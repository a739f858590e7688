"""Densities, cells and their keys."""

from __future__ import annotations

import pytest

from benchmarks.quality.grid import DENSITIES, Cell, Density, cells, record_key
from benchmarks.quality.methods import Method

WANDA = Method("wanda", "layer", "mask", "wanda")
CHITA = Method("chita", "model", "weights", "chita", takes_patterns=False)


def test_a_density_is_a_share_or_a_pattern() -> None:
    assert Density.parse("0.05") == Density(0.05)
    assert Density.parse("2:4") == Density(0.5, (2, 4))
    assert [str(Density.parse(d)) for d in DENSITIES] == list(DENSITIES)


@pytest.mark.parametrize("text", ["0", "1", "-0.1", "nan", "dense", "4:2", "2:4:8"])
def test_other_densities_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"N:M|N < M"):
        Density.parse(text)


def test_the_key_depends_on_every_part_and_not_on_the_order() -> None:
    cell = Cell("m", Density(0.1), WANDA, 0, 100)
    others = [
        Cell("n", Density(0.1), WANDA, 0, 100),
        Cell("m", Density(0.2), WANDA, 0, 100),
        Cell("m", Density(0.5, (2, 4)), WANDA, 0, 100),
        Cell("m", Density(0.1), CHITA, 0, 100),
        Cell("m", Density(0.1), WANDA, 1, 100),
        Cell("m", Density(0.1), WANDA, 0, 200),
        Cell("m", Density(0.1), WANDA, 0, 100, "kl"),
        Cell(
            "m", Density(0.1), Method("wanda", "layer", "mask", "wanda", options={"a": 1}), 0, 100
        ),
    ]
    assert len({cell.key, *(c.key for c in others)}) == 1 + len(others)
    assert record_key(dict(reversed(cell.identity.items()))) == cell.key


def test_a_grid_leaves_out_patterns_that_a_method_cannot_do() -> None:
    found = list(
        cells([("m", 5), ("n", 6)], [Density(0.1), Density.parse("2:4")], [WANDA, CHITA], [0, 1])
    )
    assert len(found) == 2 * 2 * 3
    assert not any(c.method is CHITA and c.density.pattern for c in found)
    assert [c.seed for c in found] == [0] * 6 + [1] * 6  # the first seed of everything first
    assert {(c.model, c.samples) for c in found} == {("m", 5), ("n", 6)}
