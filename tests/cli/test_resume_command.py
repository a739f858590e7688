"""`optiprune resume`: runs that were killed, stopped, or out of disk space go on."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from typer.testing import CliRunner, Result

from optiprune.cli import app
from optiprune.durable import journal as journal_module

USER_CODE = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(),
                         nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 4))

def batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(400, 12, generator=generator)
    return [(x, x[:, :4].argmax(1))]
"""

CONFIG = """
seed = 5
threads = 1
workers = 1
[model]
factory = "user.py:load"
[data]
calibration = "user.py:batches"
[output]
dir = "results"
[prune]
sparsity = 0.5
objective = "reconstruction"
[solver]
name = "tabu"
iterations = 200
[tune]
epochs = 3
"""

COMMAND = [sys.executable, "-c", "from optiprune.cli import main; main()"]
Whole = dict[str, dict[str, Tensor]]
RESULTS = ("masks.safetensors", "model.safetensors")


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "user.py").write_text(USER_CODE)
    (tmp_path / "run.toml").write_text(CONFIG)
    return tmp_path


@pytest.fixture
def whole(folder: Path) -> Whole:
    """Results of a run that nothing happened to."""
    assert run("prune", folder / "run.toml", "--out", folder / "whole").exit_code == 0
    assert not (folder / "whole" / "unfinished").exists()
    return {name: load_file(folder / "whole" / name) for name in RESULTS}


def steps_of(folder: Path) -> int:
    path = folder / "results" / "unfinished" / "journal.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def started(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, *arguments],
        cwd=folder,
        stderr=subprocess.PIPE,
        text=True,
        stdout=subprocess.PIPE,
    )


def when(folder: Path, steps: int, process: subprocess.Popen[str]) -> None:
    """Wait until so many steps are on disk."""
    until = time.monotonic() + 120
    while steps_of(folder) < steps and process.poll() is None and time.monotonic() < until:
        time.sleep(0.001)


def assert_finished(folder: Path, whole: Whole) -> None:
    out = folder / "results"
    for name, tensors in whole.items():
        found = load_file(out / name)
        assert found.keys() == tensors.keys()
        assert all(torch.equal(found[k], t) for k, t in tensors.items()), name
    assert not (out / "unfinished").exists()
    assert not list(out.glob(".*"))
    summary = json.loads((out / "summary.json").read_text())
    assert summary["failed"] is None
    history = (out / "history.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in history] == list(range(len(history)))
    assert len(history) == len((folder / "whole" / "history.jsonl").read_text().splitlines())


@pytest.mark.skipif(os.name != "posix", reason="SIGKILL")
def test_killed_and_resumed(folder: Path, whole: Whole) -> None:
    arguments = ["prune", "run.toml"]
    before = 0
    for steps in (2, 4, 6):
        with started(folder, *arguments) as process:
            when(folder, steps, process)
            process.kill()
        assert process.returncode == -signal.SIGKILL
        assert steps_of(folder) >= max(steps, before)
        before = steps_of(folder)
        arguments = ["resume", "results"]
    refused = run("prune", folder / "run.toml")
    assert refused.exit_code == 2
    assert "a run that has not ended" in refused.stderr
    done = run("resume", folder / "results")
    assert done.exit_code == 0, done.stderr
    assert f"{before - 1} steps are there" in done.stderr
    assert_finished(folder, whole)
    again = run("resume", folder / "results")
    assert again.exit_code == 2
    assert "the run there has ended" in again.stderr


@pytest.mark.skipif(os.name != "posix", reason="SIGINT")
def test_ctrl_c_ends_at_a_step_and_says_how_to_go_on(folder: Path, whole: Whole) -> None:
    with started(folder, "prune", "run.toml") as process:
        when(folder, 2, process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate()
    assert process.returncode == 130
    assert "stopping when this step is done" in errors
    assert f"optiprune resume {folder / 'results'}" in errors
    assert steps_of(folder) >= 2
    assert run("resume", folder / "results").exit_code == 0
    assert_finished(folder, whole)


def full_after(calls: int) -> Iterator[None]:
    """A disk that has room for so many files and lines."""
    real = os.fsync
    left = [calls]

    def fsync(handle: int) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(journal_module.os, "fsync", fsync)
        yield


@pytest.mark.parametrize("calls", [1, 4, 7, 12, 17])
def test_a_full_disk(folder: Path, whole: Whole, calls: int) -> None:
    for _ in full_after(calls):
        result = run("prune", folder / "run.toml")
    assert result.exit_code == 2, result.output
    assert "No space left" in result.stderr
    if calls > 5:
        assert "go on with: optiprune resume" in result.stderr
        assert run("resume", folder / "results").exit_code == 0
    else:
        assert run("prune", folder / "run.toml").exit_code == 0
    assert_finished(folder, whole)


def test_damage_is_named_and_repaired(folder: Path, whole: Whole) -> None:
    for _ in full_after(17):
        run("prune", folder / "run.toml")
    path = next((folder / "results" / "unfinished" / "steps").iterdir())
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    result = run("resume", folder / "results")
    assert result.exit_code == 2
    assert path.name in result.stderr
    assert "--repair" in result.stderr
    assert run("resume", folder / "results", "--repair").exit_code == 0
    assert_finished(folder, whole)


def test_modules_beside_the_run_file_are_found_again(folder: Path, whole: Whole) -> None:
    text = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(text.replace("user.py:", "user_of_resume:"))
    (folder / "user.py").rename(folder / "user_of_resume.py")
    with started(folder, "prune", "run.toml") as process:
        when(folder, 4, process)
        process.kill()
    done = subprocess.run([*COMMAND, "resume", str(folder / "results")], cwd="/", check=False)
    assert done.returncode == 0
    assert_finished(folder, whole)


def test_what_is_left_after_ctrl_c_is_not_lost_by_another_prune(folder: Path) -> None:
    for _ in full_after(17):
        run("prune", folder / "run.toml")
    (folder / "results" / "masks.safetensors").write_text("a partial result")
    refused = run("prune", folder / "run.toml")
    assert "optiprune resume" in refused.stderr
    journal = folder / "results" / "unfinished" / "journal.jsonl"
    journal.write_text("not a line\n" * 3)
    assert run("prune", folder / "run.toml", "--force").exit_code == 0  # whatever lay there


def test_nothing_to_resume(folder: Path) -> None:
    result = run("resume", folder / "nowhere")
    assert result.exit_code == 2
    assert "there is no run that was begun" in result.stderr
    assert not (folder / "nowhere").exists()


def test_force_begins_anew(folder: Path, whole: Whole) -> None:
    for _ in full_after(17):
        run("prune", folder / "run.toml")
    assert steps_of(folder) > 1
    text = (folder / "run.toml").read_text()
    (folder / "run.toml").write_text(text.replace("sparsity = 0.5", "sparsity = 0.6"))
    assert run("prune", folder / "run.toml", "--force").exit_code == 0
    assert steps_of(folder) == 0
    masks = load_file(folder / "results" / "masks.safetensors")
    assert any(not torch.equal(masks[k], t) for k, t in whole["masks.safetensors"].items())
