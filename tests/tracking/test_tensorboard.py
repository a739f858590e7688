"""Event files, read back by TensorBoard itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from optiprune.tracking import Outcome
from optiprune.tracking.tensorboard import TensorBoardTracker

from .conftest import record

accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")


def read(folder: Path) -> dict[str, list[tuple[int, float]]]:
    found = accumulators.EventAccumulator(str(folder)).Reload()
    return {t: [(e.step, e.value) for e in found.Scalars(t)] for t in found.Tags()["scalars"]}


def test_what_was_logged_is_there(tmp_path: Path, outcome: Outcome) -> None:
    tracker = TensorBoardTracker(tmp_path / "tb", "seed = 1\n")
    assert not (tmp_path / "tb").exists()  # a run without a step leaves nothing
    for i in range(3):
        tracker.step(record(i))
    tracker.end(outcome)
    tracker.close(failed=False)
    found = read(tmp_path / "tb")
    assert found["step/predicted"] == [(0, -0.5), (1, -1.5), (2, -2.5)]
    assert found["step/objective"] == [(0, 2.0), (1, 1.0), (2, 0.0)]
    assert found["layer/density"] == [(1, 0.5), (2, 0.25)]
    assert found["pruned/accuracy"] == [(3, pytest.approx(0.8))]
    texts = accumulators.EventAccumulator(str(tmp_path / "tb")).Reload()
    assert {"config/text_summary", "notes/text_summary"} <= set(texts.Tags()["tensors"])


def test_a_run_that_goes_on_tells_each_step_once(tmp_path: Path) -> None:
    for steps in (2, 4):  # killed after two; goes on with the first one again
        tracker = TensorBoardTracker(tmp_path, "")
        for i in range(steps):
            tracker.step(record(i))
        tracker.close(failed=True)
    assert len(list(tmp_path.glob("events.out.tfevents.*"))) == 2
    assert [s for s, _ in read(tmp_path)["step/predicted"]] == [0, 1, 2, 3]
