"""Runs read from disk: whole ones, unfinished ones, and files that are missing or damaged."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from optiprune.report import ReportError, make_document, read_run, read_runs


@pytest.fixture
def copy(global_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(global_run, tmp_path / "run"))


def test_a_whole_run(global_run: Path) -> None:
    run = read_run(global_run)
    summary = json.loads((global_run / "summary.json").read_text())
    lines = (global_run / "history.jsonl").read_text().splitlines()
    assert (run.state, run.faults, run.objective) == ("finished", (), "global")
    assert (run.kept, run.total) == (1496, 2992)
    assert len(run.history) == len(lines) == summary["report"]["steps"] > 0
    assert run.pruned == summary["pruned"]
    assert run.config["seed"] == 5
    assert run.sizes["masks.safetensors"] == (global_run / "masks.safetensors").stat().st_size


def test_steps_that_are_held_against_their_promise(global_run: Path, layer_run: Path) -> None:
    judged = read_run(global_run).judged
    assert judged
    assert all(r.accepted and r.changed for r in judged)
    blocks = read_run(layer_run)
    assert {r.step for r in blocks.judged} == {r.step for r in blocks.history if r.predicted}


def test_a_killed_run_shows_the_layers_that_are_on_disk(killed_run: Path) -> None:
    before = sorted((p, p.stat().st_mtime_ns) for p in killed_run.rglob("*"))
    run = read_run(killed_run)
    assert (run.state, run.report, run.faults) == ("unfinished", None, ())
    assert [x.name for x in run.layers] == ["0", "2"]
    assert [x.shape for x in run.layers] == [(16, 12), (140, 16)]
    assert all(0 < x.kept < x.total for x in run.layers)
    assert run.sparsity_asked == 0.5
    assert {r.layers for r in run.history} == {("0",), ("2",)}
    (part,) = make_document([run]).parts
    assert "resume" in part.warnings[0]
    # it was looked at, and nothing else
    assert sorted((p, p.stat().st_mtime_ns) for p in killed_run.rglob("*")) == before


def test_a_step_of_a_killed_run_that_is_damaged_is_named(killed_run: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(killed_run, tmp_path / "run"))
    stored = sorted((folder / "unfinished" / "steps").iterdir())
    stored[-1].write_bytes(b"not a step")
    run = read_run(folder)
    (fault,) = run.faults
    assert "'layer/" in fault
    assert len(run.layers) == 1


def test_a_run_that_stopped_says_why(copy: Path) -> None:
    table = json.loads((copy / "summary.json").read_text())
    (copy / "summary.json").write_text(json.dumps({**table, "failed": "the solver gave up"}))
    run = read_run(copy)
    assert (run.state, run.failed) == ("stopped", "the solver gave up")
    (part,) = make_document([run]).parts
    assert part.state == "stopped"
    assert "the solver gave up" in part.warnings[0]


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path, why in (
        (tmp_path / "nothing", "does not exist"),
        (tmp_path / "file", "is a file"),
        (tmp_path, "holds no run"),
    ):
        with pytest.raises(ReportError, match=why):
            read_run(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[1]", "not the summary"),
        ('{"left": 0.5}', "not the summary"),
        ('{"report": {"objective": "global"}}', "report: solver: field required"),
    ],
)
def test_a_summary_that_cannot_be_used_is_named(copy: Path, content: str, why: str) -> None:
    (copy / "summary.json").write_text(content)
    with pytest.raises(ReportError, match=why) as e:
        read_run(copy)
    assert "summary.json" in str(e.value)


def test_a_report_of_what_is_left_says_what_is_missing(copy: Path) -> None:
    for name in ("history.jsonl", "masks.safetensors", "config.toml"):
        (copy / name).unlink()
    run = read_run(copy)
    assert len(run.faults) == 3
    assert (run.history, run.masks, dict(run.config)) == ((), None, {})
    (part,) = make_document([run]).parts
    assert part.warnings == run.faults
    assert {s.title for s in part.sections} == {
        "Summary",
        "Density per layer",
        "Error per layer",
        "Tuning of the whole model",
    }


def test_steps_before_a_damaged_line_are_shown(copy: Path) -> None:
    path = copy / "history.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:2], lines[2][:40], *lines[3:]]))
    run = read_run(copy)
    assert [r.step for r in run.history] == [0, 1]
    assert "history.jsonl, line 3" in run.faults[0]


def test_steps_that_are_missing_at_the_end_are_noticed(copy: Path) -> None:
    path = copy / "history.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(lines[:-1]))
    assert f"holds {len(lines) - 1} steps" in read_run(copy).faults[0]


@pytest.mark.parametrize("damage", ["cut", "flip", "foreign"])
def test_masks_that_are_damaged_cost_the_pictures_alone(copy: Path, damage: str) -> None:
    path = copy / "masks.safetensors"
    content = bytearray(path.read_bytes())
    if damage == "cut":
        del content[-100:]
    elif damage == "flip":
        # the masks are uint8 tensors, which stand at the end
        for i in range(len(content) - 10, len(content)):
            content[i] ^= 255
    else:
        content = bytearray((copy / "model.safetensors").read_bytes())
    path.write_bytes(content)
    (part,) = make_document([read_run(copy)]).parts
    assert any("masks cannot be read" in w for w in part.warnings)
    assert "Masks" not in {s.title for s in part.sections}
    assert "Density per layer" in {s.title for s in part.sections}


def test_a_config_cannot_lead_out_of_the_folder(copy: Path) -> None:
    config = (copy / "config.toml").read_text()
    (copy / "config.toml").write_text(
        config.replace('"masks.safetensors"', '"../../secret.safetensors"')
    )
    assert read_run(copy).masks == copy / "masks.safetensors"


def test_numbers_that_json_does_not_know_are_gaps(copy: Path) -> None:
    path = copy / "history.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    lines[0]["predicted"] = None
    path.write_text("".join(json.dumps(x) + "\n" for x in lines))
    run = read_run(copy)
    assert run.faults == ()
    make_document([run])


def test_several_runs_have_names_that_differ(copy: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(copy, tmp_path / "elsewhere" / copy.parent.name / "run"))
    names = [run.name for run in read_runs([copy, other])]
    assert len(set(names)) == 2
    with pytest.raises(ReportError, match="given twice"):
        read_runs([copy, copy / ".." / "run"])
