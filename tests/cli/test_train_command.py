"""``optiprune train`` from a file: what it writes, refuses, and goes on with."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from optiprune.cli import app

MODEL = """
import torch
from torch import nn


def load():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(6, 20), nn.ReLU(), nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 3)
    )


def training_data():
    g = torch.Generator().manual_seed(1)
    x = torch.randn(240, 6, generator=g)
    return [(x, x[:, :3].argmax(1))]


def calibration():
    return [training_data()[0]]


def evaluate(model):
    x, y = training_data()[0]
    with torch.no_grad():
        return {"accuracy": float((model(x).argmax(1) == y).float().mean())}


def augment(x, generator):
    return x + 0.05 * torch.randn(x.shape, generator=generator)
"""
RUN = """
[model]
factory = "my_model.py:load"
[data]
train = "my_model.py:training_data"
calibration = "my_model.py:calibration"
evaluate = "my_model.py:evaluate"
augment = "my_model.py:augment"
[train]
epochs = 6
batch_size = 20
optimizer = { name = "Adam", lr = 0.01 }
[torque]
strength = 0.01
[budget]
parameters = 0.5
[finetune]
epochs = 4
batch_size = 20
optimizer = { name = "Adam", lr = 0.005 }
[output]
dir = "out"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "my_model.py").write_text(MODEL)
    (tmp_path / "run.toml").write_text(RUN)
    return tmp_path


def call(*args: object):
    return CliRunner().invoke(app, [str(a) for a in args])


def test_a_run_and_its_files(folder: Path) -> None:
    got = call("train", folder / "run.toml")
    assert got.exit_code == 0, got.output
    assert "finetune" in got.output
    out = folder / "out"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["parameters"]["after"] <= 0.5 * summary["parameters"]["before"]
    assert summary["phases"][2]["scores"]["accuracy"] > 0.6
    assert (out / "torque.png").stat().st_size > 5000
    # the plan and the weights make the model again
    import torch
    from safetensors.torch import load_model

    from optiprune.structure import Plan, shrink

    scope: dict = {}
    exec(MODEL, scope)
    x = scope["training_data"]()[0][0]
    again = shrink(scope["load"](), Plan.load(out / "plan-1.json"), (x[:2],)).model
    load_model(again, str(out / "model.safetensors"))
    assert scope["evaluate"](again)["accuracy"] == summary["phases"][2]["scores"]["accuracy"]
    assert torch.isfinite(again(x)).all()
    # results are not replaced by chance
    refused = call("train", folder / "run.toml")
    assert refused.exit_code == 2
    assert "holds results already" in refused.output
    assert call("train", folder / "run.toml", "--force").exit_code == 0
    # the config that was written runs again
    other = call("train", out / "config.toml", "--out", folder / "second")
    assert other.exit_code == 0, other.output
    second = (folder / "second" / "model.safetensors").read_bytes()
    assert second == (out / "model.safetensors").read_bytes()


def test_masks_by_the_behaviour_on_synthetic_samples(folder: Path) -> None:
    text = RUN.replace('calibration = "my_model.py:calibration"', 'calibration = "synthetic"')
    text = text.replace("parameters = 0.5", "sparsity = 0.5").replace("strength = 0.01", "")
    text += '[choice]\nrule = "behaviour"\nof = "weights"\n'
    text += "[synthetic]\nshape = [6]\nsteps = 20\n[sensitivity]\ntolerance = 0.2\n"
    (folder / "run.toml").write_text(text)
    got = call("train", folder / "run.toml")
    assert got.exit_code == 0, got.output
    assert "masked, not removed" in got.output
    assert (folder / "out" / "masks.safetensors").exists()
    assert not (folder / "out" / "plan-1.json").exists()


def test_what_is_refused_before_any_work(folder: Path) -> None:
    for old, new, words in (
        ("my_model.py:augment", "my_model.py:argument", "has no 'argument'"),
        ("my_model.py:load", "nothing.py:load", "there is no file"),
        ("parameters = 0.5", "parametres = 0.5", "did you mean 'parameters'"),
        ("parameters = 0.5", "", "needs a budget"),
        ('"my_model.py:calibration"', '"random"', "must be 'file.py:function'"),
    ):
        (folder / "run.toml").write_text(RUN.replace(old, new))
        got = call("train", folder / "run.toml")
        assert got.exit_code == 2, got.output
        assert words in got.output
        assert not (folder / "out").exists()


def test_template_and_explanation(folder: Path) -> None:
    text = call("config", "--training", "--template").output
    assert "[learning_weight]" in text
    (folder / "t.toml").write_text(text.replace("[budget]", "[budget]\nparameters = 0.5"))
    got = call("config", "--training", folder / "t.toml")
    assert got.exit_code == 0, got.output
    assert "rule average-weight of units" in got.output
    assert "torque.strength" in call("config", "--training", "--explain").output.replace("\n", "")
