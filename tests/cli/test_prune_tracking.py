"""`output.log`: a run of the command line in TensorBoard."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optiprune.cli import app

from .test_report_command import CONFIG, USER_CODE


def run_file(folder: Path, log: str) -> Path:
    (folder / "user.py").write_text(USER_CODE)
    (folder / "run.toml").write_text(CONFIG.replace("[output]", f"[output]\nlog = {log}"))
    return folder / "run.toml"


def prune(file: Path) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["prune", str(file), "--out", str(file.parent / "out")])
    return done.exit_code, done.stderr


def test_steps_and_end_are_in_the_event_files(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    code, errors = prune(run_file(tmp_path, '["tensorboard"]'))
    assert code == 0, errors
    out = tmp_path / "out"
    events = accumulators.EventAccumulator(str(out / "tensorboard")).Reload()
    steps = [json.loads(line) for line in (out / "steps.jsonl").read_text().splitlines()]
    logged = [(e.step, e.value) for e in events.Scalars("step/predicted")]
    assert logged == [(s["step"], pytest.approx(s["predicted"], rel=1e-6)) for s in steps]
    (density,) = events.Scalars("end/density")
    assert density.value == pytest.approx(0.5)
    assert "seed" in events.Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()


def test_a_tracker_that_is_not_installed_stops_before_the_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("optiprune.tracking.trackers.find_spec", lambda name: None)
    file = run_file(tmp_path, '["mlflow"]')
    (tmp_path / "user.py").write_text("raise RuntimeError('the model was made')")
    code, errors = prune(file)
    assert code == 2
    assert "pip install 'optiprune[mlflow]'" in errors
    assert "the model was made" not in errors
    assert not (tmp_path / "out").exists()


def test_a_tracker_that_does_not_exist(tmp_path: Path) -> None:
    code, errors = prune(run_file(tmp_path, '["wandb"]'))
    assert code == 2
    assert "'tensorboard' or 'mlflow'" in errors
