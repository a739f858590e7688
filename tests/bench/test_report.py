"""Tables and figures: what is shown is what was measured, for any number of solvers."""

from __future__ import annotations

import io
import struct
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from optiprune.bench.report import make_report, summary_tables

from .conftest import record

NOTHING: dict[str, Any] = {"energy": None, "x": None, "trajectory": []}
MANY = [f"dwave-sa:num_sweeps={100 * i},num_reads=10,penalty=0.1" for i in range(1, 18)]


def shown(records: list[dict[str, Any]]) -> str:
    out = io.StringIO()
    for table in summary_tables(make_report(records)):
        Console(file=out, width=160).print(table)
    return out.getvalue()


def test_tables_are_by_mode_and_say_which() -> None:
    text = shown([record(), record(mode="once"), record(mode="once+target")])
    assert "n = 4, 1 s: 1 instances" in text
    assert "n = 4, 1 s, one start: 1 instances" in text
    assert "n = 4, 1 s, one start, to the best known: 1 instances" in text


def test_runs_and_instances_that_hit_are_told_apart() -> None:
    text = shown([record(), record(seed=1, energy=-5.0, trajectory=[[0.1, -5.0]])])
    (row,) = (line for line in text.splitlines() if " s " in line and "50 %" in line)
    assert "1/1" in row
    (head,) = (line for line in text.splitlines() if "TTT99" in line)
    assert "a run" in head


@pytest.mark.parametrize(("seeds", "interval"), [(2, False), (3, True)])
def test_an_interval_needs_three_runs_of_each_instance(seeds: int, interval: bool) -> None:
    records = [record(seed=i, sha256=sha) for i in range(seeds) for sha in ("aa", "bb")]
    (row,) = (line for line in shown(records).splitlines() if "100 %" in line)
    assert (", " in row) is interval


def test_errors_are_told_with_what_went_wrong() -> None:
    failed = record(status="error", message="RuntimeError: no [b]luck[/b] today", **NOTHING)
    assert "1 errors (RuntimeError: no [b]luck[/b] today)" in shown([failed])
    long = shown([record(status="error", message="word " * 100, **NOTHING)])
    assert "..." in long
    assert long.count("word") < 20


matplotlib = pytest.importorskip("matplotlib")


def drawn(records: list[dict[str, Any]], folder: Path) -> dict[str, Path]:
    from optiprune.bench.report.figures import draw_all

    return {p.name: p for p in draw_all(make_report(records), folder)}


def size(png: Path) -> tuple[int, int]:
    return struct.unpack(">II", png.read_bytes()[16:24])


def test_a_figure_grows_with_its_legend(tmp_path: Path) -> None:
    few = drawn([record(solver=s) for s in MANY[:2]], tmp_path / "few")
    many = drawn([record(solver=s) for s in MANY], tmp_path / "many")
    for name in ("profile-1s", "time-to-target-1s", "gap-over-time-1s"):
        (width, low), (same, high) = (size(of[f"{name}.png"]) for of in (few, many))
        assert width == same
        # 15 more entries, each a line of 7 points at least
        assert high - low > 15 * 7 / 72 * 300
        text = many[f"{name}.svg"].read_text()
        assert all(s in text for s in MANY)


def test_a_legend_takes_as_many_lines_as_its_entries_need() -> None:
    from optiprune.bench.report.legend import Legend

    short = Legend.of(["a", "b", "c", "d"], 3.5)
    assert short.columns == 4
    assert Legend.of(MANY, 3.5).columns == 1
    assert Legend.of(MANY, 3.5).height == pytest.approx(17 * short.height)
    wide = Legend.of([MANY[0] + ",beta_max=12.5,beta_min=0.1"], 3.5)
    (text,) = wide.texts.values()
    assert [line[-1] for line in text.split("\n")] == [",", "1"]  # between two options
    assert short.height < wide.height < 2 * short.height


def test_a_solver_without_answers_is_told_in_the_figure(tmp_path: Path) -> None:
    records = [record(n=4), record(n=8, sha256="bb")]
    records += [record(solver="mute", n=8, sha256="bb", status="no incumbent", **NOTHING)]
    text = drawn(records, tmp_path)["gap-over-time-1s.svg"].read_text()
    assert "mute (mostly no answer: n = 8)" in text


def test_figures_without_any_answer(tmp_path: Path) -> None:
    assert drawn([record(status="no incumbent", **NOTHING)], tmp_path)


def test_figures_of_near_budgets_and_other_modes_have_files_of_their_own(tmp_path: Path) -> None:
    near = 0.0200000001
    records = [record(budget=0.02), record(budget=near), record(budget=0.02, mode="once")]
    names = set(drawn(records, tmp_path))
    assert {f"profile{e}.png" for e in ("-0.02s", "-0.0200000001s", "-once-0.02s")} <= names
    assert len(names) == 3 * 3 * 2


def figure_of(records: list[dict[str, Any]]) -> Any:
    from matplotlib.figure import Figure

    from optiprune.bench.report import figures
    from optiprune.bench.report.legend import Legend
    from optiprune.bench.statistics import gap_curves

    runs = make_report(records).runs
    sizes = sorted({r.n for r in runs})
    curves = {n: gap_curves([r for r in runs if r.n == n]) for n in sizes}
    solvers = list(dict.fromkeys(r.solver for r in runs))
    figure = Figure()
    labels = {s: s for s in solvers}
    figures._curves(figure, Legend.of(solvers, 3.5), curves, figures._styles(solvers), labels)
    return figure


def test_incumbents_are_steps_and_panels_have_one_range() -> None:
    worse = [[0.001, 990.0], [0.5, -10.0]]
    figure = figure_of([record(), record(n=8, sha256="bb", trajectory=worse)])
    first, second = figure.axes
    assert first.get_ylim() == second.get_ylim()
    assert first.get_xlim() == second.get_xlim()
    (line,) = first.get_lines()
    assert line.get_drawstyle() == "steps-post"


def test_what_a_hollow_mark_means_can_be_read_one_way(tmp_path: Path) -> None:
    # met on one of two instances: half
    records = [record(), record(sha256="bb"), record(solver="t")]
    records += [record(solver="t", sha256="bb", energy=-5.0, trajectory=[[0.1, -5.0]])]
    text = drawn(records, tmp_path)["time-to-target-1s.svg"].read_text()
    assert "hollow: met on half of the instances or fewer" in text


def test_a_late_answer_is_told_as_one() -> None:
    late = record(cpu_s=1.24, trajectory=[[1.24, -10.0]])  # not yet over time
    assert "50 % answered in time" in shown([record(), {**late, "seed": 1}])
