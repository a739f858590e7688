"""A run that is killed after any of its steps goes on to the same masks, values and history."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from optiprune import optimize_masks
from optiprune.durable import Journal, JournalError, LockedError, locked
from optiprune.engine import RunInterruptedError
from optiprune.engine.identity import RunMismatchError
from optiprune.engine.steps import JournalSteps

TINY = {
    "threads": 1,
    "workers": 1,
    "batches": {"size": 32, "steps": 8, "sweeps": 2},
    "curvature": {"samples": 60, "gradient_samples": 200},
    "solver": {"name": "tabu", "iterations": 300},
}
GLOBAL = {"objective": "global", "loss": "kl"}
CASES: dict[str, dict[str, Any]] = {
    "layers, values moved": {
        "prune": {"objective": "reconstruction", "refit": True},
        "tune": {"epochs": 3},
    },
    "layers, masks alone": {"prune": {"objective": "reconstruction", "refit": False}},
    "knapsack, windows": {
        "prune": {"objective": "reconstruction", "refit": True},
        "allocation": {"method": "knapsack", "samples": 100, "judging": 50},
        "window": {"epochs": 2},
        "tune": {"epochs": 0},
    },
    "N:M": {
        "prune": {"objective": "reconstruction", "refit": True, "pattern": "2:4"},
        "tune": {"epochs": 0},
    },
    "global, masks alone": {
        "prune": {**GLOBAL, "refit": False},
        "schedule": {"kind": "cubic", "stages": 3},
    },
    "global, second refit": {
        "prune": {**GLOBAL, "refit": True},
        "refit": {"steps": 4},
        "tune": {"epochs": 2, "mix": 0.0},
    },
    "global, subset rounds": {
        "prune": {**GLOBAL, "refit": True},
        "refit": {"steps": 0},
        "subset": {"rounds": 3, "samples": 80, "size": 16, "exchanges": 3},
        "tune": {"epochs": 0},
    },
}


class KilledError(Exception):
    pass


class KilledAfter:
    """A store whose owner dies after so many steps."""

    def __init__(self, folder: Path, steps: int) -> None:
        self.inner = JournalSteps(Journal(folder))
        self.left = steps
        self.taken = 0

    def __contains__(self, key: str) -> bool:
        return key in self.inner

    def get(self, key: str) -> Any:
        found = self.inner.get(key)
        self.taken += found is not None
        return found

    def put(self, key: str, arrays: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        if not self.left:
            raise KilledError(key)
        self.left -= 1
        self.inner.put(key, arrays, record)

    def check(self) -> None:
        self.inner.check()


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(12, 24), nn.Linear(24, 12)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(torch.relu(self.first(x)))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(8, 12), Residual(), Residual(), nn.ReLU(), nn.Linear(12, 4)
    ).eval()


def data(n: int = 300) -> list[Tensor]:
    return [torch.randn(n, 8, generator=torch.Generator().manual_seed(1))]


def run(case: str, steps: Any = None, **more: Any) -> Any:
    model = network()
    result = optimize_masks(
        model, data(), config={**TINY, **CASES[case]}, sparsity=0.5, steps=steps, **more
    )
    return result, {k: v.clone() for k, v in model.state_dict().items()}


def untimed(history: Any) -> list[dict[str, Any]]:
    """As plain values, and of a trajectory the energies alone."""
    plain = [{k: v for k, v in r.as_dict().items() if k[-2:] != "_s"} for r in history]
    return [table | {"trajectory": [e for _, e in table["trajectory"]]} for table in plain]


def without_seconds(notes: tuple[str, ...]) -> list[str]:
    return [re.sub(r" in [\d.]+ s$", "", note) for note in notes]


def assert_same(got: Any, want: Any) -> None:
    for name, tensor in want[1].items():
        assert torch.equal(got[1][name], tensor), name
    assert untimed(got[0].history) == untimed(want[0].history)
    assert without_seconds(got[0].report.notes) == without_seconds(want[0].report.notes)
    assert got[0].report.loss_final == want[0].report.loss_final
    assert [x.error_refit for x in got[0].report.layers] == [
        x.error_refit for x in want[0].report.layers
    ]


@pytest.mark.parametrize("case", CASES)
def test_killed_after_every_step(case: str, tmp_path: Path) -> None:
    want = run(case)
    folder = tmp_path / "run"
    counts = []
    for _ in range(60):
        store = KilledAfter(folder, 1)  # one step each time: killed at all of them
        try:
            got = run(case, store)
        except KilledError:
            counts.append(len(Journal(folder).entries))
            continue
        break
    else:
        pytest.fail("the run never ended")
    assert_same(got, want)
    assert len(counts) >= 3
    again = KilledAfter(folder, 0)  # all is there: nothing is put, and the same comes out
    assert_same(run(case, again), want)
    assert again.taken == len(again.inner.journal.entries)


def test_workers_do_not_make_it_another_run(tmp_path: Path) -> None:
    case = "layers, masks alone"
    first = run(case, tmp_path)
    model = network()
    config = {**TINY, **CASES[case], "workers": 2}
    result = optimize_masks(model, data(), config=config, sparsity=0.5, steps=tmp_path)
    assert_same((result, model.state_dict()), first)


def test_steps_of_another_run_are_refused(tmp_path: Path) -> None:
    case = "layers, masks alone"
    run(case, tmp_path)
    with pytest.raises(RunMismatchError, match="option seed was 0 and is 3"):
        run(case, tmp_path, seed=3)
    with pytest.raises(RunMismatchError, match="option solver"):
        run(case, tmp_path, solver={"name": "tabu", "iterations": 7})
    model = network()
    with torch.no_grad():
        model[0].weight[0, 0] += 1e-7
    before = {k: v.clone() for k, v in model.state_dict().items()}
    config = {**TINY, **CASES[case]}
    with pytest.raises(RunMismatchError, match="the model's weights was"):
        optimize_masks(model, data(), config=config, sparsity=0.5, steps=tmp_path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    with pytest.raises(RunMismatchError, match="the calibration data was"):
        optimize_masks(network(), data(299), config=config, sparsity=0.5, steps=tmp_path)


def test_a_damaged_step_is_named_and_can_be_done_again(tmp_path: Path) -> None:
    case = "layers, values moved"
    want = run(case, tmp_path)
    path = next((tmp_path / "steps").glob("*tuning*"))
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    with pytest.raises(JournalError, match=r"tuning\.bin is damaged"):
        run(case, tmp_path)
    repaired = JournalSteps(Journal(tmp_path, repair=True))
    assert_same(run(case, repaired), want)
    assert_same(run(case, tmp_path), want)


def test_a_folder_in_use_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(LockedError, match="is in use"):
        run("N:M", tmp_path)


def test_a_stop_that_is_asked_for_comes_after_a_whole_step(tmp_path: Path) -> None:
    case = "layers, values moved"
    want = run(case)
    journal = Journal(tmp_path)
    with pytest.raises(RunInterruptedError) as info:
        run(case, JournalSteps(journal, stop=lambda: len(journal.entries) >= 3))
    assert len(Journal(tmp_path).entries) == 3
    assert [e.key for e in journal.entries][-1] == "layer/0"
    assert {r.layers for r in info.value.partial.history} == {("0",)}  # the whole step counts
    assert_same(run(case, tmp_path), want)


def test_a_search_that_the_clock_ended_ends_there_again(tmp_path: Path) -> None:
    case = "global, masks alone"
    config = {**TINY, **CASES[case], "batches": {"size": 32, "steps": 400, "seconds": 0.3}}

    def once() -> Any:
        model = network()
        result = optimize_masks(model, data(), config=config, sparsity=0.5, steps=tmp_path)
        return result, model.state_dict()

    first = once()
    assert any("batches.seconds is over" in note for note in first[0].report.notes)
    assert_same(once(), first)


def test_repair_does_what_came_after_again(tmp_path: Path) -> None:
    case = "global, second refit"
    want = run(case, tmp_path)
    keys = [e.key for e in Journal(tmp_path).entries]
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[3] = lines[3].replace(b"search", b"seerch")
    path.write_bytes(b"\n".join(lines))
    with pytest.raises(JournalError, match=r"line 4, is damaged"):
        Journal(tmp_path)
    journal = Journal(tmp_path, repair=True)
    assert [e.key for e in journal.entries] == keys[:3]
    assert_same(run(case, tmp_path), want)  # it is repaired for good


def test_a_journal_without_its_first_line_is_of_no_run(tmp_path: Path) -> None:
    run("N:M", tmp_path)
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0][:-9] + b"x" * 9, *lines[1:]]))
    assert Journal(tmp_path, repair=True).entries == ()
