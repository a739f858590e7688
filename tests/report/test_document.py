"""What a report says, held against the files that it was made of."""

from __future__ import annotations

import json
import math
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from optiprune.engine.records import StepRecord
from optiprune.engine.window_tuning import WindowReport
from optiprune.masks import MaskSet
from optiprune.report import make_document, read_run, read_runs
from optiprune.report.document import Section, Table
from optiprune.report.sections.passes import allocation_section, window_section
from optiprune.report.sections.solver_paths import paths_section
from optiprune.report.sections.solving import solver_section
from optiprune.report.sections.steps import energy_section, promise_section
from optiprune.report.sections.summary import error_ratios, summary_section


def sections(folder: Path) -> dict[str, Section]:
    (part,) = make_document([read_run(folder)]).parts
    return {s.title: s for s in part.sections}


def column(table: Table, name: str) -> list:
    at = table.columns.index(name)
    return [row[at].value for row in table.rows]


STEP = StepRecord(
    step=0,
    stage=0,
    layers=("a",),
    size=10,
    kept=5,
    changed=2,
    predicted=-2.0,
    actual=-1.0,
    accepted=True,
    objective=3.0,
    ridge=0.1,
    density=0.5,
    solver="tabu",
    status="feasible",
    gap=None,
    solve_s=0.25,
    wall_s=0.5,
)


def run_with(folder: Path, steps: list[StepRecord]):
    return replace(read_run(folder), history=tuple(steps))


def test_the_sections_of_each_kind_of_run(global_run: Path, layer_run: Path) -> None:
    both = {
        "Summary",
        "Density per layer",
        "Error per layer",
        "Predicted against actual change",
        "Energies over the steps",
        "Energies inside the solvers",
        "Solvers",
        "Tuning of the whole model",
        "Masks",
    }
    assert set(sections(global_run)) == both
    assert set(sections(layer_run)) == both | {"Allocation of densities"}


def test_densities_are_those_of_the_masks(layer_run: Path) -> None:
    masks = MaskSet.load(layer_run / "masks.safetensors")
    (listed,) = sections(layer_run)["Density per layer"].tables
    assert column(listed, "kept") == [int(m.sum()) for m in masks.values()]
    assert column(listed, "density") == [float(m.double().mean()) for m in masks.values()]


def test_the_summary_says_what_the_summary_file_says(global_run: Path) -> None:
    table = json.loads((global_run / "summary.json").read_text())
    section = sections(global_run)["Summary"]
    assert (
        section.paragraphs[0] == "50.0 % of the 2,992 weights in 3 layers were kept, 50.0 % pruned."
    )
    scores = section.tables[0]
    assert column(scores, "dense") == [table["dense"]["accuracy"]]
    assert column(scores, "pruned") == [table["pruned"]["accuracy"]]
    notes = [column(t, "note") for t in section.tables if t.caption == "Notes of the run"]
    assert notes == ([table["report"]["notes"]] if table["report"]["notes"] else [])


def test_promises_are_sums_over_the_steps_that_stayed(global_run: Path) -> None:
    steps = [
        STEP,
        replace(STEP, step=1, predicted=-4.0, actual=-2.0),
        replace(STEP, step=2, predicted=-100.0, actual=50.0, accepted=False),
    ]
    run = run_with(global_run, steps)
    (text,) = [p for p in summary_section(run, "s").paragraphs if "promised" in p]
    assert "2 steps" in text
    assert "−6 in all" in text
    assert "−3, 50 % of what was promised" in text
    energies = energy_section(run, "e")
    assert energies is not None
    (stages,) = energies.tables
    assert column(stages, "predicted") == [-6.0]
    assert column(stages, "measured") == [-3.0]
    assert column(stages, "stayed") == [2]


def test_incumbents_inside_the_solvers(global_run: Path, layer_run: Path) -> None:
    for run in (read_run(global_run), read_run(layer_run)):
        assert any(len(r.trajectory) > 1 for r in run.history)
        for r in run.history:
            assert len(r.trajectory) <= 24
            if run.objective == "global" and r.trajectory:
                assert r.trajectory[-1][1] == pytest.approx(r.predicted)
    steps = [
        replace(STEP, solve_s=2.0, trajectory=((0.1, -1.0), (0.5, -3.98), (2.0, -4.0))),
        replace(STEP, step=1, trajectory=((0.1, -1.0),)),
        replace(STEP, step=2, trajectory=((0.1, 0.5), (math.nan, -2.0))),
        replace(STEP, step=3),
    ]
    section = paths_section(run_with(global_run, steps), "p")
    assert section is not None
    assert "1 step of 4" in section.paragraphs[0]
    assert "after 25 % of its time" in section.paragraphs[1]
    (listed,) = section.tables
    assert [[cell.value for cell in row] for row in listed.rows] == [
        [1, "a", 3, -1.0, 0.1, -4.0, 2.0, 0.5]
    ]
    (plot,) = section.plots
    assert len(plot.dots) == 3
    corners = re.findall(r"[ML]([\d.]+) ([\d.]+)", plot.lines[0].path)
    assert {(d.x, d.y) for d in plot.dots} <= {(float(x), float(y)) for x, y in corners}
    assert paths_section(run_with(global_run, steps[1:]), "p") is None


def test_many_paths_are_a_selection_and_the_text_says_so(global_run: Path) -> None:
    path = ((0.1, -1.0), (0.2, -2.0))
    steps = [replace(STEP, step=i, trajectory=path) for i in range(500)]
    section = paths_section(run_with(global_run, steps), "p")
    assert section is not None
    assert [label.split(",")[0] for label, *_ in section.plots[0].legend] == [
        f"step {i}" for i in (1, 101, 201, 300, 400, 500)
    ]
    assert "6 of 500 steps, at equal distances" in section.plots[0].text
    assert len(section.tables[0].rows) == 200
    assert "200 of 500" in section.tables[0].caption


def test_solver_statistics_count_what_is_known(global_run: Path) -> None:
    steps = [
        replace(STEP, status="optimal", gap=0.0),
        replace(STEP, step=1, gap=0.3),
        replace(STEP, step=2, gap=0.1, layers=("a", "b")),
        replace(STEP, step=3),
    ]
    section = solver_section(run_with(global_run, steps), "s")
    assert section is not None
    assert section.paragraphs[0].startswith(
        "1 of 4 steps were solved to proven optimality; for 1 there is no bound"
    )
    by_status, by_layer = section.tables
    assert column(by_status, "status") == ["feasible", "optimal"]
    assert column(by_status, "largest gap") == [0.3, 0.0]
    assert column(by_status, "median gap") == pytest.approx([0.2, 0.0])
    assert column(by_status, "solver time") == pytest.approx([0.75, 0.25])
    assert column(by_layer, "layer") == ["a", "several layers at once"]


def test_a_dot_a_step_and_where_it_lies(global_run: Path) -> None:
    steps = [STEP, replace(STEP, step=1, predicted=-1.0, actual=1.0, accepted=False)]
    section = promise_section(run_with(global_run, steps), "s")
    assert section is not None
    (plot,) = section.plots
    kept, undone = plot.dots
    assert (kept.hollow, undone.hollow) == (False, True)
    assert kept.x < undone.x  # predicted to gain more
    assert kept.y > undone.y  # and pixels grow downwards
    assert "step 2, rolled back: predicted −1, measured +1" in undone.tip


def test_many_steps_are_thinned_and_the_text_says_so(global_run: Path) -> None:
    steps = [replace(STEP, step=i, actual=-1.0 - i) for i in range(4000)]
    section = promise_section(run_with(global_run, steps), "s")
    assert section is not None
    assert len(section.plots[0].dots) == 1500
    assert "1,500 at equal distances" in section.plots[0].text
    # those furthest from the promise of -2 are the last
    assert column(section.tables[0], "step") == list(range(3801, 4001))


def test_ratios_are_those_held_out_where_there_are(layer_run: Path) -> None:
    run = read_run(layer_run)
    expected = [x.holdout_refit / x.holdout_initial for x in run.layers]
    assert error_ratios(run) == pytest.approx(expected)


def test_allocation_and_windows(layer_run: Path) -> None:
    run = read_run(layer_run)
    assert run.report is not None
    found = allocation_section(run, "a")
    assert found is not None
    assert "'owl'" in found.paragraphs[0]
    assert "outliers" in found.tables[0].columns
    windows = (
        WindowReport("block.0", 0.5, 0.25, 2, 1.0),
        WindowReport("block.1", 0.2, 0.2, 0, 1.0),
    )
    section = window_section(replace(run, report=replace(run.report, windows=windows)), "w")
    assert section is not None
    assert column(section.tables[0], "relative change") == [-0.5, 0.0]
    assert "1 of 2 blocks" in section.plots[0].text


def test_every_chart_has_a_table_beside_it(global_run: Path, layer_run: Path) -> None:
    for part in make_document(read_runs([global_run, layer_run])).parts:
        for section in part.sections:
            assert not (section.plots or section.pictures) or section.tables, section.title


def test_two_runs_side_by_side(global_run: Path, layer_run: Path, killed_run: Path) -> None:
    compared, *parts = make_document(read_runs([global_run, layer_run, killed_run])).parts
    assert [p.key for p in parts] == ["run-1", "run-2", "run-3"]
    found = {s.title: s for s in compared.sections}
    names = [run.name for run in read_runs([global_run, layer_run, killed_run])]

    (options,) = found["Options that differ"].tables
    rows = {row[0].value: [c.value for c in row[1:]] for row in options.rows}
    assert rows["prune.objective"] == ['"global"', '"reconstruction"', '"reconstruction"']
    assert "prune.sparsity" not in rows

    (layers,) = found["Layers side by side"].tables
    assert [row[0].value for row in layers.rows] == ["0", "2", "4"]
    assert column(layers, f"density, {names[2]}")[-1] is None

    first = MaskSet.load(global_run / "masks.safetensors")
    second = MaskSet.load(layer_run / "masks.safetensors")
    (agreement,) = found["Agreement of the masks"].tables
    expected = [
        int((first[n] & second[n]).sum()) / int((first[n] | second[n]).sum()) for n in first
    ]
    assert column(agreement, f"common with {names[0]}: {names[1]}") == pytest.approx(expected)


def test_the_same_run_agrees_with_itself(global_run: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(global_run, tmp_path / "copy"))
    compared, *_ = make_document(read_runs([global_run, other])).parts
    found = {s.title: s for s in compared.sections}
    assert found["Options that differ"].paragraphs == ("All options of these runs are the same.",)
    (agreement,) = found["Agreement of the masks"].tables
    assert np.all([row[1].value == 1.0 for row in agreement.rows])
