"""Best known answers over sessions: energies and bounds are merged, false claims are told."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from optiprune.bench.errors import BenchError
from optiprune.bench.instances import MANIFEST, BestKnown, Instance, export_suite
from optiprune.bench.instances.folder import read_manifest
from optiprune.bench.instances.instance import hex_of
from optiprune.bench.records import FILE, update_best, with_best_known, write_best_known
from optiprune.bench.records.best_known import merged
from optiprune.bench.report import known_of, make_report
from optiprune.problems import QUBO
from optiprune.solvers import get

from .conftest import instance, record, small


def test_a_bound_that_a_later_session_refutes_is_no_proof() -> None:
    first = record(solver="liar", status="optimal", bound=-10.0)
    before = make_report([first])
    assert before.best["aa"].proven
    later = record(solver="auto", energy=-12.0, trajectory=[[0.1, -12.0]])
    for records in ([first, later], [later]):  # with the claim's own record, and without it
        report = make_report(records, before.best)
        known = report.best["aa"]
        assert (known.energy, known.bound, known.proven_by) == (-12.0, None, None)
        assert not known.proven
        (fault,) = report.faults
        assert "liar claims a bound of -10.0 for a, above the energy -12.0" in fault


def test_a_bound_off_by_rounding_is_kept() -> None:
    known = BestKnown(-10.0, "s", bound=-10.0 + 1e-7, proven_by="exact")
    best, faults = update_best({"aa": known}, [record()])
    assert best["aa"].proven
    assert faults == []


def test_an_optimum_without_a_bound_is_a_bound() -> None:
    best, faults = update_best({}, [record(solver="exact", status="optimal")])
    assert (best["aa"].bound, best["aa"].proven_by, faults) == (-10.0, "exact", [])


@pytest.mark.parametrize("bound", [None, -20.0])
def test_a_false_optimum_is_a_fault(bound: float | None) -> None:
    records = [record(solver="liar", status="optimal", energy=-9.0, bound=bound), record()]
    report = make_report(records)
    assert report.faults == [
        "liar claims -9.0 as the optimum of a, above the energy -10.0 found by s"
    ]
    assert report.best["aa"].bound is None
    assert {r.solver: r.proven for r in report.rows} == {"liar": 0, "s": 0}


def test_an_infeasible_problem_has_no_answers() -> None:
    claim: dict[str, Any] = {"status": "infeasible", "energy": None, "x": None, "trajectory": []}
    assert make_report([record(solver="liar", **claim)]).faults == []
    (fault,) = make_report([record(solver="liar", **claim), record()]).faults
    assert fault.startswith("liar claims that a has no feasible answer")


def test_proofs_that_were_refuted_do_not_count() -> None:
    honest = record(solver="exact", status="optimal", bound=-10.0)
    liar = record(solver="liar", status="optimal", energy=-9.0, bound=-9.0)
    rows = make_report([honest, liar]).rows
    assert {r.solver: r.proven for r in rows} == {"exact": 1, "liar": 0}


def test_claims_are_held_to_the_scale_of_the_problem() -> None:
    small_scale = {"rounding": 1e-18, "trajectory": []}
    liar = record(solver="liar", status="optimal", energy=4e-9, bound=4e-9, **small_scale)
    better = record(energy=3e-9, **small_scale)
    report = make_report([liar, better])
    assert len(report.faults) == 1
    assert report.best["aa"].energy == 3e-9
    assert report.best["aa"].rounding == 1e-18
    assert not report.best["aa"].proven


def test_an_answer_within_rounding_is_not_a_better_one() -> None:
    first, second = record(energy=0.0, rounding=1e-12), record(solver="t", energy=-1.4e-14)
    best, _ = update_best({}, [first, second])
    assert (best["aa"].energy, best["aa"].found_by) == (0.0, "s")


def test_energy_and_bound_come_from_whoever_has_the_better_one() -> None:
    folder, planted = (
        BestKnown(-136.0, "tabu", "f0"),
        BestKnown(-136.0, "planted", "0f", -136.0, "p"),
    )
    for a, b in ((folder, planted), (planted, folder)):
        both = merged(a, b)
        assert (both.energy, both.bound, both.proven_by, both.found_by) == (
            -136.0,
            -136.0,
            "p",
            a.found_by,
        )
    looser = BestKnown(-130.0, "paper", None, -140.0, "q")
    assert merged(looser, folder) == BestKnown(-136.0, "tabu", "f0", -140.0, "q")
    published = BestKnown(-136.0, "paper")
    assert merged(published, folder) == BestKnown(-136.0, "paper", "f0")


def test_a_bound_that_holds_goes_before_one_that_does_not() -> None:
    wrong, right = (
        BestKnown(-10.0, "liar", None, -10.0, "liar"),
        BestKnown(-12.0, "s", None, -15.0, "t"),
    )
    assert merged(wrong, right).bound == -15.0
    # without another it is left for the next report to tell
    best, faults = update_best({"aa": merged(wrong, BestKnown(-12.0, "s"))}, [])
    assert best["aa"].bound is None
    assert len(faults) == 1


def test_known_of_merges_the_folder_and_the_instances(tmp_path: Path) -> None:
    given = instance().with_best(BestKnown(-136.0, "planted", None, -136.0, "planted"))
    write_best_known(tmp_path / FILE, {given.sha256: BestKnown(-136.0, "tabu", "f0")}, {})
    known = known_of(tmp_path, [given])[given.sha256]
    assert (known.x, known.bound, known.found_by) == ("f0", -136.0, "tabu")


def solved() -> Instance:
    problem = small()
    s = get("exhaustive").solve(problem)
    best = BestKnown(s.energy, "planted", hex_of(s.x), s.energy, "planted")
    return instance().with_best(best)


def test_a_report_after_a_kill_knows_what_the_kept_instances_know(tmp_path: Path) -> None:
    planted = solved()
    export_suite([planted], tmp_path / "instances")
    assert planted.best is not None
    worse = planted.best.energy + 1.0
    line = record(sha256=planted.sha256, energy=worse, trajectory=[[0.1, worse]])
    report = make_report([line], known_of(tmp_path))  # the run did not get to write FILE
    assert report.rows[0].hit_rate == 0.0
    known = report.best[planted.sha256]
    assert (known.energy, known.found_by, known.proven) == (planted.best.energy, "planted", True)


def test_a_damaged_entry_of_the_kept_instances_is_said(tmp_path: Path) -> None:
    export_suite([solved()], tmp_path / "instances")
    manifest = read_manifest(tmp_path / "instances")
    manifest["instances"][0]["best_known"] = {"energie": 1.0}
    (tmp_path / "instances" / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BenchError, match="best known"):
        known_of(tmp_path)


def test_an_export_has_the_better_of_each_and_no_refuted_bound() -> None:
    problem = QUBO([[-2.0, 0.0], [0.0, 1.0]])
    wrong = BestKnown(0.0, "liar", hex_of([0, 0]), 0.0, "liar")
    i = Instance.of("two", problem, lambda: problem, family="f", recipe="r", best=wrong)
    (out,) = with_best_known([i], {i.sha256: BestKnown(-2.0, "s", hex_of([1, 0]))})
    assert out.best is not None
    assert (out.best.energy, out.best.bound) == (-2.0, None)
    (out,) = with_best_known([i], {i.sha256: BestKnown(-2.0, "s", hex_of([1, 0]), -3.0, "t")})
    assert out.best is not None
    assert (out.best.bound, out.best.proven_by) == (-3.0, "t")
