"""MLflow: a run on the server, in the database or in the folder that MLFLOW_TRACKING_URI names."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from optiprune.durable import replacing
from optiprune.engine.records import StepRecord

from .errors import TrackingError
from .scalars import Outcome, end_scalars, layer_scalars, step_scalars

__all__ = ["RUN_ID_FILE", "MlflowTracker"]

RUN_ID_FILE = "mlflow-run.txt"
_EXPERIMENT = "optiprune"
_LONGEST_PARAMETER, _MOST_PARAMETERS, _MOST_METRICS = 500, 100, 1000
_SECONDS = 1.0  # between two calls of the server


class MlflowTracker:
    """Options as parameters, numbers as metrics, the run's small files as artifacts.

    Parameters
    ----------
    folder : of the run; the id of MLflow's run is kept there, so that a run that goes on adds to
        it what was not logged yet
    config : options, nested
    resumed : whether the run goes on

    Raises
    ------
    TrackingError
        MLflow is not installed, or its store cannot be reached.
    """

    def __init__(self, folder: Path, config: Mapping[str, Any], *, resumed: bool) -> None:
        try:
            from mlflow import MlflowClient
            from mlflow.entities import Metric, Param
        except ImportError as e:
            raise TrackingError(
                "output.log names 'mlflow', which is not installed: pip install 'optiprune[mlflow]'"
            ) from e
        self._metric, self._param = Metric, Param
        self._waiting: list[Any] = []
        self._sent = time.monotonic()
        self._next_step = 0
        try:
            self._client = MlflowClient()
            found = self._found(folder) if resumed else None
            self._id = self._begun(folder, config) if found is None else found
        except Exception as e:  # whatever the store raises
            where = os.environ.get("MLFLOW_TRACKING_URI", "its default place")
            raise TrackingError(
                f"output.log names 'mlflow', whose store ({where}) cannot be used: {e}"
            ) from e

    def step(self, record: StepRecord) -> None:
        if record.step < self._next_step:
            return
        self._add(step_scalars(record), record.step)
        if time.monotonic() - self._sent > _SECONDS:
            self._send()

    def end(self, outcome: Outcome) -> None:
        self._add(end_scalars(outcome), outcome.report.steps)
        for number, scalars in enumerate(layer_scalars(outcome), 1):
            self._add(scalars, number)
        self._send()
        if outcome.failed:
            self._client.set_tag(self._id, "optiprune.failed", outcome.failed)
        for path in outcome.files:
            self._client.log_artifact(self._id, str(path))

    def close(self, *, failed: bool) -> None:
        self._send()
        self._client.set_terminated(self._id, "FAILED" if failed else "FINISHED")

    def _found(self, folder: Path) -> str | None:
        """The run that was begun before; None if it is gone."""
        from mlflow.exceptions import MlflowException

        path = folder / RUN_ID_FILE
        if not path.is_file():
            return None
        number = path.read_text(encoding="utf-8").strip()
        try:
            logged = self._client.get_metric_history(number, "step/predicted")
            self._client.update_run(number, status="RUNNING")
        except MlflowException:
            return None
        self._next_step = 1 + max((m.step for m in logged), default=-1)
        return number

    def _begun(self, folder: Path, config: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", _EXPERIMENT)
        experiment = self._client.get_experiment_by_name(name)
        if experiment is None:
            at = self._client.create_experiment(name)
        else:
            at = experiment.experiment_id
        run = self._client.create_run(
            at, tags={"optiprune.folder": str(folder)}, run_name="/".join(folder.parts[-2:])
        )
        number = str(run.info.run_id)
        params = [self._param(key, value) for key, value in _flat(config)]
        for i in range(0, len(params), _MOST_PARAMETERS):
            self._client.log_batch(number, params=params[i : i + _MOST_PARAMETERS])
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / RUN_ID_FILE) as part:
            part.write_text(number + "\n", encoding="utf-8")
        return number

    def _add(self, scalars: Mapping[str, float], step: int) -> None:
        now = int(1000 * time.time())
        for name, value in scalars.items():
            # what a metric's name may not hold
            safe = re.sub(r"[^\w./ -]", "_", name)
            self._waiting.append(self._metric(safe, value, now, step))

    def _send(self) -> None:
        while self._waiting:
            self._client.log_batch(self._id, metrics=self._waiting[:_MOST_METRICS])
            del self._waiting[:_MOST_METRICS]
        self._sent = time.monotonic()


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}", str(value)[:_LONGEST_PARAMETER]
