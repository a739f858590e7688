"""Runs in a database of MLflow, read back by its client."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from optiprune.tracking import Outcome, TrackingError
from optiprune.tracking.mlflow import RUN_ID_FILE, MlflowTracker

from .conftest import record

mlflow = pytest.importorskip("mlflow")
pytestmark = pytest.mark.slow  # MLflow takes seconds to make its database


@pytest.fixture
def client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "pruning")
    monkeypatch.chdir(tmp_path)  # artifacts go below it
    return mlflow.MlflowClient()


def history(client: Any, run: str, name: str) -> list[tuple[int, float]]:
    return [(m.step, m.value) for m in client.get_metric_history(run, name)]


def test_a_run_and_one_that_goes_on(tmp_path: Path, client: Any, outcome: Outcome) -> None:
    folder = tmp_path / "runs" / "x"
    config = {"seed": 5, "prune": {"sparsity": 0.5, "loss": None, "long": "x" * 9999}}
    first = MlflowTracker(folder, config, resumed=False)
    for i in range(2):
        first.step(record(i))
    first.close(failed=True)
    number = (folder / RUN_ID_FILE).read_text().strip()
    run = client.get_run(number)
    assert run.info.status == "FAILED"
    assert run.info.run_name == "runs/x"
    assert run.data.params["prune.sparsity"] == "0.5"
    assert "prune.loss" not in run.data.params

    told = tmp_path / "summary.json"
    told.write_text("{}")
    again = MlflowTracker(folder, config, resumed=True)
    for i in range(4):
        again.step(record(i))
    done = Outcome(outcome.report, {"top-1 %": 0.5}, {}, "", (told,))
    again.end(done)
    again.close(failed=False)
    assert (folder / RUN_ID_FILE).read_text().strip() == number
    assert client.get_run(number).info.status == "FINISHED"
    assert history(client, number, "step/predicted") == [(i, -0.5 - i) for i in range(4)]
    assert history(client, number, "dense/top-1 _") == [(3, 0.5)]
    assert [f.path for f in client.list_artifacts(number)] == ["summary.json"]

    other = MlflowTracker(folder, config, resumed=False)
    other.close(failed=False)
    assert (folder / RUN_ID_FILE).read_text().strip() != number


def test_a_run_that_is_gone_begins_anew(tmp_path: Path, client: Any) -> None:
    (tmp_path / RUN_ID_FILE).write_text("0" * 32 + "\n")
    tracker = MlflowTracker(tmp_path, {}, resumed=True)
    tracker.step(record(0))
    tracker.close(failed=False)
    number = (tmp_path / RUN_ID_FILE).read_text().strip()
    assert history(client, number, "step/predicted") == [(0, -0.5)]


def test_a_store_that_cannot_be_reached_is_named(
    tmp_path: Path, client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nonsense://nowhere")
    with pytest.raises(TrackingError, match="nonsense://nowhere"):
        MlflowTracker(tmp_path, {}, resumed=False)
