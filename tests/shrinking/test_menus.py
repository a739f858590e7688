"""Damage curves: never falling as units leave, and never quite flat."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from optiprune.shrinking.menus import menus_of


def objective(costs: dict[int, float]) -> SimpleNamespace:
    """Predicts the cost of a width from a table, or one unit's worth each."""

    def steps(group: int, widths: list[int]) -> list[tuple[np.ndarray, float, dict[str, int]]]:
        return [(np.ones(1, bool), costs.get(w, 0.0), {"width": w}) for w in widths]

    return SimpleNamespace(steps=steps)


def test_predictions_become_curves() -> None:
    of = (2, 4, 6, 8)
    (menu,) = menus_of([of], objective({2: 4.0, 4: 1.0, 6: 2.0}), 4, None)
    # 4 units cannot cost less than 6 do; a thousandth of 4.0 for a whole group on top
    assert menu.damage == pytest.approx((4.003, 2.002, 2.001, 0.0))


def test_between_levels_it_is_a_line_and_measures_win() -> None:
    of = tuple(range(1, 10))
    (menu,) = menus_of([of], objective({}), 2, lambda weights: 8.0 if weights["width"] == 1 else 99)
    assert menu.damage[0] == pytest.approx(8.0 + 8e-3 * 8 / 9)
    assert menu.damage[4] == pytest.approx(4.0 + 8e-3 * 4 / 9)
    assert menu.damage[-1] == 0.0


def test_flat_curves_and_groups_of_one_width() -> None:
    menus = menus_of([(4,), (1, 2, 3)], objective({1: 0.0, 2: -1.0}), 3, None)
    assert menus[0].damage == (0.0,)
    assert menus[1].damage == (0.0, 0.0, 0.0)
