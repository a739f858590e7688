"""A target: met by the problem's own energy, or the whole schedule is run."""

import numpy as np
import pytest

from optiprune.problems import QUBO
from optiprune.problems.generators import layer_miqp, layer_problem
from optiprune.solvers import Target, TimeLimit, get
from optiprune.solvers.native.search import KernelRun


def falls_short(reference, s, target) -> bool:
    """Whether a run ended with neither the target nor the moves of its schedule."""
    if s.energy <= target:
        return False
    return s.stats.stop_reason != "completed" or s.stats.moves < reference.stats.moves


@pytest.mark.parametrize("name", ["tabu", "annealing", "local-search"])
@pytest.mark.parametrize("seed", range(6))
def test_a_target_just_below_an_incumbent_does_not_end_the_search(name, seed):
    problem = layer_problem(300, 150, seed=seed)  # float32 inside
    reference = get(name).solve(problem)
    for _, energy in reference.stats.trajectory[-6:]:
        # the kernel's own energy drifts by more than this
        target = energy - 1e-9 * abs(energy)
        s = get(name).solve(problem, stop=Target(target))
        assert not falls_short(reference, s, target), (s.stats, s.energy - target)


@pytest.mark.parametrize("name", ["tabu", "annealing", "local-search", "auto"])
def test_targets_without_constraints(name):
    r = np.random.default_rng(0)
    problem = QUBO(r.standard_normal((200, 200)), r.standard_normal(200))
    reference = get(name).solve(problem)
    for _, energy in reference.stats.trajectory[-6:]:
        for target in (energy - 1e-9 * abs(energy), energy, np.nextafter(energy, np.inf)):
            s = get(name).solve(problem, stop=Target(target))
            assert s.energy <= target or not falls_short(reference, s, target)


@pytest.mark.parametrize("name", ["tabu", "annealing", "local-search"])
def test_every_claim_of_a_kernel_is_checked(name, monkeypatch):
    """Kernels that overstate every energy: none of their stops may end the search."""
    problem = layer_problem(40, 20, seed=0)
    best = get(name).solve(problem).energy
    target = best - 1e-3 * abs(best)  # out of reach
    init = KernelRun.__init__

    def generous(self, *args):
        init(self, *args)
        self.target += 2e-3 * abs(best)

    monkeypatch.setattr(KernelRun, "__init__", generous)
    reference = get(name).solve(problem)
    s = get(name).solve(problem, stop=Target(target))
    assert s.stats.stop_reason == "completed"
    assert s.stats.moves >= reference.stats.moves
    assert s.energy > target


@pytest.mark.parametrize(
    "problem",
    [layer_problem(16, 8, seed=1), layer_miqp(12, 6, seed=1), layer_miqp(10, 5, bound=0.3, seed=2)],
    ids=["cardinality", "miqp", "bounded miqp"],
)
def test_exhaustive_search_goes_on_to_its_proof(problem):
    reference = get("exhaustive").solve(problem)
    for _, energy in reference.stats.trajectory:
        for target in (energy, np.nextafter(energy, -np.inf), energy - 1e-12 * abs(energy)):
            s = get("exhaustive").solve(problem, stop=Target(target) | TimeLimit(60))
            if s.energy <= target:
                assert s.stats.stop_reason in ("target", "completed")
            else:
                assert s.stats.stop_reason == "completed"
                assert s.energy == reference.energy
