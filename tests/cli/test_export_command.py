"""`optiprune export`: every format from a run's folder, and what is refused before any work."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from typer.testing import CliRunner, Result

from optiprune.cli import app
from optiprune.export import load_packed
from optiprune.masks import MaskSet

USER_CODE = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU())

def batches():
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(1))
    return [(x, x[:, :4].argmax(1))]

def other_batches():
    return [torch.zeros(3, 5)]
"""

CONFIG = """
[model]
factory = "user.py:load"
[data]
calibration = "user.py:batches"
[output]
dir = "results"
[prune]
sparsity = 0.5
pattern = "2:4"
[solver]
name = "auto"
"""


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "user.py").write_text(USER_CODE)
    (folder / "run.toml").write_text(CONFIG)
    done = invoke("prune", folder / "run.toml")
    assert done.exit_code == 0, done.output
    return folder / "results"


@pytest.fixture
def run(finished, tmp_path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "run"))


def pruned(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def fresh() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU())


def test_packed(run):
    done = invoke("export", run, "--to", "packed")
    assert done.exit_code == 0, done.output
    assert "1024 of 2048 masked weights kept (density 0.5000)" in done.output
    model = fresh()
    masks = load_packed(run / "packed.safetensors", model)
    assert masks == MaskSet.load(run / "masks.safetensors")
    assert all(torch.equal(t, pruned(run)[n]) for n, t in model.state_dict().items())
    assert str((run / "packed.safetensors").stat().st_size) in done.output


def test_plain_weights_in_half_precision(run, tmp_path):
    out = tmp_path / "half.safetensors"
    done = invoke("export", run, "--to", "safetensors", "--out", out, "--dtype", "bfloat16")
    assert done.exit_code == 0, done.output
    assert torch.equal(load_file(out)["0.weight"], pruned(run)["0.weight"].bfloat16())


@pytest.mark.parametrize("to", ["torch-export", "onnx"])
def test_programs(run, to):
    if to == "onnx":
        for name in ("onnx", "onnxscript", "onnxruntime"):
            pytest.importorskip(name)
    done = invoke("export", run, "--to", to)
    assert done.exit_code == 0, done.output
    assert "on batches of 1, 4, 5" in done.output
    x = torch.randn(7, 64)
    model = fresh()
    model.load_state_dict(pruned(run))
    if to == "onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(run / "model.onnx")
        (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(got), model(x))
    else:
        torch.testing.assert_close(torch.export.load(run / "model.pt2").module()(x), model(x))


def test_semi_structured_is_for_half_precision(run):
    refused(run, "dtype torch.float32", "--to", "semi-structured")
    done = invoke("export", run, "--to", "semi-structured", "--dtype", "float16")
    assert done.exit_code == 0, done.output
    load_packed(run / "semi-structured.safetensors", fresh().half())


def test_fine_tuned_weights_of_the_same_masks(run, tmp_path):
    tuned = {n: t * 1.5 for n, t in pruned(run).items()}
    save_file(tuned, tmp_path / "tuned.safetensors")
    done = invoke("export", run, "--to", "packed", "--weights", tmp_path / "tuned.safetensors")
    assert done.exit_code == 0, done.output
    model = fresh()
    load_packed(run / "packed.safetensors", model)
    assert torch.equal(model[0].weight, tuned["0.weight"])


def test_a_run_without_saved_weights(run):
    want = pruned(run)
    (run / "model.safetensors").unlink()
    refused(run, "lacks the run's weights model.safetensors", "--to", "packed")
    config = (run / "config.toml").read_text()
    assert "save_model = true" in config
    (run / "config.toml").write_text(config.replace("save_model = true", "save_model = false"))
    assert invoke("export", run, "--to", "packed").exit_code == 0
    model = fresh()
    load_packed(run / "packed.safetensors", model)
    assert torch.equal(model[0].weight, want["0.weight"])


def refused(run, text, *arguments):
    before = {p.name: p.read_bytes() for p in run.iterdir()} if run.is_dir() else {}
    done = invoke("export", run, *arguments)
    assert done.exit_code == 2, done.output
    assert text in done.output
    after = {p.name: p.read_bytes() for p in run.iterdir()} if run.is_dir() else {}
    assert after == before


def test_what_is_wrong_is_said_before_anything_is_written(run, tmp_path):
    refused(run, "'pickle' is not one of", "--to", "pickle")
    refused(tmp_path / "none", "lies in a folder that does not exist", "--to", "packed")
    out = tmp_path / "x.safetensors"
    refused(tmp_path / "none", "there is no folder", "--to", "packed", "--out", out)
    refused(run, "does not exist", "--to", "packed", "--out", tmp_path / "no" / "x")
    refused(run, "is for onnx and torch-export", "--to", "packed", "--fixed-batch")
    own = run / "masks.safetensors"
    refused(run, "exists; give --force", "--to", "packed", "--out", own)
    refused(run, "one of the run's own files", "--to", "packed", "--out", own, "--force")
    refused(run, "there is no file", "--to", "packed", "--weights", tmp_path / "t.safetensors")


def test_a_folder_without_a_finished_run(run):
    (run / "summary.json").unlink()
    refused(run, "holds no finished `optiprune prune` run: no summary.json", "--to", "packed")


def test_weights_and_masks_that_are_not_this_models(run, tmp_path):
    dense = {n: torch.ones_like(t) for n, t in pruned(run).items()}
    save_file(dense, tmp_path / "dense.safetensors")
    arguments = ("--to", "packed", "--weights", tmp_path / "dense.safetensors")
    refused(run, "is not zero at 1024 of 1024 pruned weights", *arguments)
    save_file({"x": torch.ones(2)}, tmp_path / "dense.safetensors")
    refused(run, "dense.safetensors: ", *arguments)
    torch.save(dense, tmp_path / "dense.safetensors")
    refused(run, "dense.safetensors: ", *arguments)
    whole = (run / "masks.safetensors").read_bytes()
    (run / "masks.safetensors").write_bytes(whole[:-3])
    refused(run, "is damaged or is not a safetensors file", "--to", "packed")
    MaskSet({"0.weight": torch.ones(2, 2, dtype=torch.bool)}).save(run / "masks.safetensors")
    refused(run, "has shape (32, 64)", "--to", "packed")


def test_calibration_that_the_model_cannot_read(run):
    config = (run / "config.toml").read_text()
    (run / "config.toml").write_text(config.replace("user.py:batches", "user.py:other_batches"))
    refused(run, "cannot trace Sequential", "--to", "torch-export")


def test_the_summary_is_not_touched(run):
    before = json.loads((run / "summary.json").read_text())
    assert invoke("export", run, "--to", "packed").exit_code == 0
    assert json.loads((run / "summary.json").read_text()) == before
