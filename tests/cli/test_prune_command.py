"""`optiprune prune`: a run from a file, what it writes, and what it refuses before it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from optiprune.cli import app
from optiprune.cli.run_config import load_run_config
from optiprune.masks import MaskSet

USER_CODE = """
import torch
from torch import nn
from neighbour import SCALE

calls = []

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))

def batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(96, 12, generator=generator) * SCALE
    return [(x[i : i + 32], x[i : i + 32, :4].argmax(1)) for i in range(0, 96, 32)]

def evaluate(model):
    calls.append(sum(int((p != 0).sum()) for p in model.parameters()))
    return {"nonzero": calls[-1]}

def needs_an_argument(x): ...
def no_iterable(): return 3
def no_module(): return [1]
def broken(): raise RuntimeError("out of coffee")
def no_table(model): return 0.97
def measures_once(model):
    calls.append(1)
    if len(calls) > 1:
        raise RuntimeError("test set unreachable")
    return {"calls": 1}
def wrong_labels(): return [(x, y + 4) for x, y in batches()]
not_callable = 3
"""

CONFIG = """
seed = 5
[model]
factory = "user.py:load"
[data]
calibration = "user.py:batches"
evaluate = "user.py:evaluate"
[output]
dir = "results"
[prune]
sparsity = 0.5
objective = "global"
refit = false
[batches]
size = 48
steps = 4
[curvature]
samples = 64
[solver]
name = "greedy"
"""

FILES = {
    "config.toml",
    "history.jsonl",
    "masks.safetensors",
    "model.safetensors",
    "summary.json",
}


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "user.py").write_text(USER_CODE)
    (tmp_path / "neighbour.py").write_text("SCALE = 2.0\n")
    (tmp_path / "run.toml").write_text(CONFIG)
    return tmp_path


def change(folder: Path, old: str, new: str) -> Path:
    path = folder / "run.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    return path


def test_a_run_from_a_file(folder: Path) -> None:
    result = run("prune", folder / "run.toml")
    assert result.exit_code == 0, result.output + result.stderr
    out = folder / "results"
    assert {p.name for p in out.iterdir()} == FILES

    # 12 * 16 + 16 * 4 = 256 weights, half of them kept, and 20 biases
    weights = load_file(out / "model.safetensors")
    nonzero = sum(int(weights[n].count_nonzero()) for n in ("0.weight", "2.weight"))
    assert nonzero == 128
    summary = json.loads((out / "summary.json").read_text())
    assert summary["failed"] is None
    assert summary["dense"] == {"nonzero": 256 + 20}
    assert summary["pruned"] == {"nonzero": 128 + 20}
    assert summary["report"]["density"] == pytest.approx(0.5)

    # the masks on the dense model give the pruned one again
    torch.manual_seed(0)
    dense = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    masks = MaskSet.load(out / "masks.safetensors", dense)
    masks.apply(dense)
    for name, value in dense.state_dict().items():
        assert torch.equal(value, weights[name])

    steps = [json.loads(line) for line in (out / "history.jsonl").read_text().splitlines()]
    assert [s["step"] for s in steps] == list(range(len(steps)))
    assert 0 < len(steps) <= 4
    assert all(s["solver"] == "greedy" for s in steps)


def test_the_config_written_runs_again_to_the_same_masks(folder: Path) -> None:
    assert run("prune", folder / "run.toml").exit_code == 0
    written = folder / "results" / "config.toml"
    assert load_run_config(written).engine_config() == (
        load_run_config(folder / "run.toml").engine_config()
    )
    again = run("prune", written, "--out", folder / "again")
    assert again.exit_code == 0, again.stderr
    first = load_file(folder / "results" / "model.safetensors")
    second = load_file(folder / "again" / "model.safetensors")
    assert all(torch.equal(first[n], second[n]) for n in first)


def test_options_in_place_of_the_file(folder: Path, tmp_path: Path) -> None:
    arguments = ["--sparsity", 0.75, "--seed", 9, "--solver", "tabu", "--out", tmp_path / "other"]
    result = run("prune", folder / "run.toml", *arguments)
    assert result.exit_code == 0, result.output + result.stderr
    used = load_run_config(tmp_path / "other" / "config.toml")
    assert (used.prune.sparsity, used.seed, used.solver) == (0.75, 9, {"name": "tabu"})
    weights = load_file(tmp_path / "other" / "model.safetensors")
    assert sum(int(weights[n].count_nonzero()) for n in ("0.weight", "2.weight")) == 64
    assert not (folder / "results").exists()


def test_results_are_not_overwritten_without_force(folder: Path) -> None:
    out = folder / "results"
    out.mkdir()
    (out / "masks.safetensors").write_text("precious")
    refused = run("prune", folder / "run.toml")
    assert refused.exit_code == 2
    assert "holds results already (masks.safetensors)" in refused.stderr
    assert (out / "masks.safetensors").read_text() == "precious"
    assert run("prune", folder / "run.toml", "--force").exit_code == 0
    assert {p.name for p in out.iterdir()} == FILES


def test_weights_are_loaded(folder: Path) -> None:
    torch.manual_seed(3)
    trained = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 4))
    save_file(trained.state_dict(), folder / "trained.safetensors")
    path = change(folder, "[data]", 'weights = "trained.safetensors"\n[data]')
    assert run("prune", path).exit_code == 0
    pruned = load_file(folder / "results" / "model.safetensors")["0.weight"]
    kept = pruned != 0
    assert torch.equal(pruned[kept], trained[0].weight.detach()[kept])


def test_model_file_only_if_asked_for(folder: Path) -> None:
    path = change(folder, "[prune]", "save_model = false\n[prune]")
    assert run("prune", path).exit_code == 0
    assert {p.name for p in (folder / "results").iterdir()} == FILES - {"model.safetensors"}


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("user.py:load", "absent.py:load", "there is no file"),
        ("user.py:load", "user.py:laod", "its functions: batches, broken, evaluate, load"),
        ("user.py:load", "user.py:not_callable", "must be callable, got a int"),
        ("user.py:load", "user.py:needs_an_argument", "is called with no arguments"),
        ("user.py:load", "user.py:broken", "raised RuntimeError: out of coffee"),
        ("user.py:load", "user.py:no_module", "must return a torch.nn.Module, got a list"),
        ("user.py:load", "no_such_module_anywhere:load", "ModuleNotFoundError"),
        ("user.py:batches", "user.py:no_iterable", "must return an iterable of batches"),
        ("user.py:evaluate", "user.py:batches", "is called with the model"),
        ("user.py:evaluate", "user.py:no_table", "must return a table of numbers"),
        ("[data]", 'weights = "absent.safetensors"\n[data]', "model.weights: there is no file"),
        ("[data]", 'weights = "user.py"\n[data]', "model.weights"),
        ('name = "greedy"', 'name = "gredy"', "did you mean 'greedy'?"),
        ("sparsity = 0.5", "sparsity = 1.0", "prune.sparsity"),
        ('dir = "results"', 'dir = "user.py"', "is a file"),
        ('dir = "results"', 'dir = "results"\nmasks = "summary.json"', "'summary.json' twice"),
    ],
)
def test_bad_input_is_one_message(folder: Path, old: str, new: str, complaint: str) -> None:
    result = run("prune", change(folder, old, new))
    assert result.exit_code == 2, result.output + result.stderr
    assert complaint in result.stderr
    assert "Traceback" not in result.stderr
    # nothing that could be taken for a result
    assert not (folder / "results").exists()


def test_force_keeps_old_results_while_the_input_is_bad(folder: Path) -> None:
    (folder / "results").mkdir()
    (folder / "results" / "summary.json").write_text("precious")
    result = run("prune", change(folder, "user.py:load", "user.py:broken"), "--force")
    assert result.exit_code == 2
    assert (folder / "results" / "summary.json").read_text() == "precious"


def test_an_import_that_fails_names_the_error(folder: Path) -> None:
    (folder / "user.py").write_text("import torch\nraise KeyError('no licence')\n")
    result = run("prune", folder / "run.toml")
    assert result.exit_code == 2
    assert "user.py' failed with KeyError: 'no licence'" in result.stderr


def test_a_solver_that_breaks_leaves_what_was_reached(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from optiprune.solvers.native.greedy import Greedy

    original = Greedy._solve
    calls = []

    def breaks_at_the_second(self: Greedy, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            raise RuntimeError("licence server unreachable")
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Greedy, "_solve", breaks_at_the_second)
    result = run("prune", folder / "run.toml")
    assert result.exit_code == 1, result.output + result.stderr
    assert "licence server unreachable" in result.stderr
    out = folder / "results"
    assert {p.name for p in out.iterdir()} == FILES | {"unfinished"}
    summary = json.loads((out / "summary.json").read_text())
    assert "licence server unreachable" in summary["failed"]
    assert len((out / "history.jsonl").read_text().splitlines()) == 1
    weights = load_file(out / "model.safetensors")
    assert sum(int(weights[n].count_nonzero()) for n in ("0.weight", "2.weight")) == 128


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ("sparsity = 0.5", "sparsity = 0.9999", "lower it"),
        ("user.py:batches", "user.py:wrong_labels", "raised IndexError"),
        ("[prune]", '[layers]\ninclude = ["nowhere"]\n[prune]', "matches no layer"),
        ("[solver]", "[solver]\ntime_limit = -1", "time_limit"),
    ],
)
def test_force_keeps_old_results_while_the_engine_refuses(
    folder: Path, old: str, new: str, complaint: str
) -> None:
    assert run("prune", folder / "run.toml").exit_code == 0
    out = folder / "results"
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    refused = run("prune", change(folder, old, new), "--force")
    assert refused.exit_code == 2, refused.output + refused.stderr
    assert complaint in refused.stderr
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert run("prune", change(folder, new, old), "--force").exit_code == 0


def test_a_measure_that_fails_costs_no_result(folder: Path) -> None:
    result = run("prune", change(folder, "user.py:evaluate", "user.py:measures_once"))
    assert result.exit_code == 2
    assert "test set unreachable" in result.stderr
    out = folder / "results"
    assert {p.name for p in out.iterdir()} == FILES
    summary = json.loads((out / "summary.json").read_text())
    assert summary["dense"] == {"calls": 1}
    assert summary["pruned"] is None
    assert summary["report"]["density"] == pytest.approx(0.5)


@pytest.mark.parametrize("good", [0, 1])
def test_ctrl_c_ends_the_run_and_keeps_what_was_reached(
    folder: Path, monkeypatch: pytest.MonkeyPatch, good: int
) -> None:
    from optiprune.solvers.native.greedy import Greedy

    original = Greedy._solve
    calls = []

    def interrupted(self: Greedy, *arguments: object) -> object:
        calls.append(1)
        if len(calls) > good:
            raise KeyboardInterrupt
        return original(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Greedy, "_solve", interrupted)
    result = run("prune", folder / "run.toml")
    assert result.exit_code == 130, result.output + result.stderr
    assert "interrupted" in result.stderr
    assert len(calls) == good + 1
    out = folder / "results"
    if not good:
        assert not out.exists()
        return
    assert {p.name for p in out.iterdir()} == FILES | {"unfinished"}
    assert json.loads((out / "summary.json").read_text())["failed"] == "interrupted after 1 steps"


def test_threads_sleep_while_they_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    from optiprune import cli

    seen = []
    monkeypatch.setattr(cli, "app", lambda: seen.append(os.environ.get("OMP_WAIT_POLICY")))
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    cli.main()
    monkeypatch.delenv("OMP_WAIT_POLICY")
    cli.main()
    assert seen == ["ACTIVE", "PASSIVE"]
    # it has to be set before torch is loaded
    code = "import sys, optiprune.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_an_allocation_is_asked_for_in_the_file_and_stands_in_the_summary(folder: Path) -> None:
    path = folder / "run.toml"
    table = '[allocation]\nmethod = "knapsack"\nbudget = "bytes"\nlevels = 4\n'
    path.write_text(CONFIG.replace("refit = false", 'refit = false\nscope = "layer"') + table)
    result = run("prune", path)
    assert result.exit_code == 0, result.output
    assert "allocation 'knapsack'" in result.output
    report = json.loads((folder / "results" / "summary.json").read_text())["report"]
    allocation = report["allocation"]
    assert (allocation["method"], allocation["budget"]) == ("knapsack", "bytes")
    kept = {row["name"]: row["kept"] for row in report["layers"]}
    assert {row["name"]: row["kept"] for row in allocation["layers"]} == kept
    # 4 bytes a value and a bit for each of the 12 * 16 and 16 * 4 weights; half of 1024 bytes
    assert allocation["spent"] == 4 * sum(kept.values()) + 32
    assert 512 - 4 < allocation["spent"] <= allocation["limit"] == 512


def test_a_preset_of_the_command_line_gives_way_to_the_file(folder: Path) -> None:
    change(folder, "refit = false", "refit = true")
    path = change(folder, 'objective = "global"', 'objective = "reconstruction"')
    result = run("prune", path, "--preset", "fast")
    assert result.exit_code == 0, result.output + result.stderr
    used = load_run_config(folder / "results" / "config.toml")
    assert used.preset == "fast"
    assert used.tune.epochs == 0
    assert used.batches.steps == 4  # the file's own, where the preset has 10
    refused = run("prune", path, "--preset", "slow", "--force")
    assert refused.exit_code == 2
    assert "preset" in refused.stderr


def test_a_dry_run_shows_the_plan_and_writes_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("prune", folder / "run.toml", "--dry-run")
    assert result.exit_code == 0, result.output + result.stderr
    assert "batch over all layers" in result.output
    assert "Time, estimated" in result.output
    assert not (folder / "results").exists()
    from optiprune.planning import estimate

    monkeypatch.setattr(estimate, "available_bytes", lambda device: 1)
    refused = run("prune", folder / "run.toml", "--dry-run")
    assert refused.exit_code == 2
    assert "the run needs about" in refused.stderr
