"""Pruning instances against the layers that they are cut out of."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import cutting, digest
from optiprune.bench.instances.cutting import FAMILIES, cut
from optiprune.solvers import get

pytest.importorskip("sklearn")


@pytest.fixture(autouse=True, scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    from optiprune.bench.instances.networks import trained_network

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPTIPRUNE_CACHE", str(tmp_path_factory.mktemp("cache")))
        trained_network.cache_clear()
        yield
        trained_network.cache_clear()


@pytest.fixture(scope="module")
def layer(cache: None) -> tuple[np.ndarray, np.ndarray]:
    """Weights and inputs of the layer of the digits' instances."""
    from optiprune.bench.instances.networks import trained_network

    net = trained_network("digits")
    return net.weights("fc2"), net.inputs("fc2")


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("n", [16, 128])
def test_half_is_kept_and_energies_are_in_units_of_a_weight(family: str, n: int) -> None:
    problem = cut("digits", family, n, 0)
    assert problem.n == n
    assert problem.k.tolist() == [n // 2]
    assert problem.diagonal().mean() == pytest.approx(1.0)
    assert np.linalg.eigvalsh(problem.dense())[0] > -1e-9
    assert (problem.dense() < 0).any()  # weights that cancel one another
    if family == "layer":
        # "as now" is one of the feasible answers, and has energy 0
        assert get("tabu").solve(problem).energy <= 1e-9
    else:
        assert problem.energy(np.ones(n)) == pytest.approx(0.0, abs=1e-9)


def test_energies_are_those_of_the_layer(
    layer: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    W, X = layer
    seen: dict[str, np.ndarray] = {}
    around = cutting._around_cut

    def spy(score, n, density):  # type: ignore[no-untyped-def]
        seen["kept"], seen["batch"] = around(score, n, density)
        return seen["kept"], seen["batch"]

    monkeypatch.setattr(cutting, "_around_cut", spy)
    n, rng = 32, np.random.default_rng(0)
    alive = np.flatnonzero((X * X).sum(axis=0) > 0)
    for family in ("layer", "pure"):
        problem = cut("digits", family, n, 3)
        kept, batch = seen["kept"], seen["batch"]
        assert kept[batch].sum() == n // 2
        # the row is the one whose weights give the same curvature
        H = X.T @ X / len(X)
        own = [W[r, alive[batch]] ** 2 * np.diag(H)[alive[batch]] for r in range(len(W))]
        (row,) = (
            r for r, d in enumerate(own) if np.allclose(d / d.mean(), problem.diagonal(), rtol=1e-6)
        )
        w = W[row]
        unit = 0.5 * own[row].mean()
        present = np.zeros_like(w)
        present[alive] = w[alive] * (kept if family == "layer" else 1.0)

        def error(v: np.ndarray, w: np.ndarray = w) -> float:
            return float(0.5 * ((X @ (v - w)) ** 2).mean())

        x = np.zeros(n, np.int8)
        x[rng.permutation(n)[: n // 2]] = 1
        moved = present.copy()
        moved[alive[batch]] = w[alive[batch]] * x
        expected = (error(moved) - error(present)) / unit
        assert problem.energy(x) == pytest.approx(expected, rel=1e-6, abs=1e-6)


def test_instances_are_the_same_each_time_and_differ_from_one_another() -> None:
    first = [digest(cut("digits", f, 16, i)) for f in FAMILIES for i in range(3)]
    again = [digest(cut("digits", f, 16, i)) for f in FAMILIES for i in range(3)]
    assert first == again
    assert len(set(first)) == len(first)


def test_a_cached_network_gives_the_same_instances() -> None:
    from optiprune.bench.instances.networks import trained_network

    before = digest(cut("digits", "layer", 16, 0))
    trained_network.cache_clear()  # reads the file that the training left
    assert digest(cut("digits", "layer", 16, 0)) == before


def test_batches_over_several_rows_have_no_coupling_between_them() -> None:
    problem = cut("digits", "pure", 512, 0)
    coupled = problem.dense() != 0
    assert 0 < coupled.mean() < 0.9
    assert coupled.any(axis=1).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nothing", "layer", 16, 0), "networks: digits"),
        (("digits", "nothing", 16, 0), "families: layer"),
        (("digits", "layer", 15, 0), "even number"),
        (("digits", "layer", 60_000, 0), "too small"),
    ],
)
def test_what_cannot_be_cut(arguments: tuple, message: str) -> None:  # type: ignore[type-arg]
    with pytest.raises(BenchError, match=message):
        cut(*arguments)


def test_the_bench_loads_neither_torch_nor_matplotlib_until_it_must() -> None:
    code = (
        "import sys, optiprune.bench.instances, optiprune.bench.protocol, optiprune.bench.report, "
        "optiprune.bench.records, optiprune.cli\n"
        "from optiprune.bench.instances import Selection, suite\n"
        "suite('generators', Selection((12,), 1))\n"
        "assert not {'torch', 'matplotlib', 'sklearn'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
