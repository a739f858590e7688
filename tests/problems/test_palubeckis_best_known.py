"""The Palubeckis generator against the literature: tabu reaches the best known value exactly.

An instance that differs in a handful of entries has another optimum: with values rounded to float32
the same search ends 8 above the best known of p3000.1.
"""

import pytest

from optiprune import solvers
from optiprune.problems import PALUBECKIS_BEST_KNOWN, palubeckis_instance


@pytest.mark.slow
@pytest.mark.parametrize("name", ["p3000.1", "p3000.4"])
def test_tabu_reaches_the_best_known_and_no_more(name):
    p = palubeckis_instance(name)
    best = PALUBECKIS_BEST_KNOWN[name]
    # a search ends by its own schedule, often 0.01 % short: others go on from there, a few seeds
    # in all; a last search sees whether the value can be passed
    x = None
    for seed in range(8):
        stop = solvers.Target(-best) | solvers.TimeLimit(20)
        first = solvers.get("tabu").solve(p, x0=x, seed=seed, stop=stop)
        x = first.x
        if first.energy <= -best:
            break
    assert first.energy == -best
    more = solvers.get("tabu").solve(p, x0=first.x, seed=1, stop=solvers.TimeLimit(2))
    assert more.energy == -best
