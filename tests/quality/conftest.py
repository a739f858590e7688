"""Hand-made records, and a module of models and methods that the process of a cell can import."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.quality.grid import record_key

FAKES = '''
import os, time
import torch
from torch import nn
from benchmarks.models.classification import compare_logits
from benchmarks.models.quality import ACCURACY, QualityModel

X = torch.randn(64, 8, generator=torch.Generator().manual_seed(5))
Y = X[:, :4].argmax(1)

def load(seed):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4)).eval()

def tiny():
    return QualityModel(
        name="tiny", about="8-8-4", metric=ACCURACY, minutes=0.01, samples=32, load=load,
        seeds_train=True, calibration=lambda n: [(X[:n], Y[:n])], heldout=lambda: [X],
        evaluate=lambda m, d: compare_logits(m, d, X, Y), require=lambda: None,
    )

def keep_all(model, layers, data, *, density, pattern, seed):
    """The first weights of every row; refuses the warm-up's network, which has 32 columns."""
    masks = {}
    for layer in layers:
        assert layer.cols == 8, "warm-up"
        mask = torch.zeros(layer.rows, layer.cols, dtype=torch.bool)
        mask[:, : round(density * layer.cols)] = True
        masks[layer.parameter] = mask.view(layer.shape)
    return masks, None

def dies(model, layers, data, **_):
    os._exit(7)

def sleeps(model, layers, data, **_):
    time.sleep(600)

def fails(model, layers, data, **_):
    raise ValueError("no good")

def greedy(model, layers, data, **_):
    return {l.parameter: torch.ones(l.shape, dtype=torch.bool) for l in layers}, None
'''


@pytest.fixture
def fakes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder, the present one, with the module ``fakes``."""
    (tmp_path / "fakes.py").write_text(FAKES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


def make_record(**fields: Any) -> dict[str, Any]:
    """The record of a good cell; accuracy 0.8, loss 0.5, 2 s."""
    out: dict[str, Any] = {
        "type": "cell",
        "model": "m",
        "density": "0.1",
        "method": "wanda",
        "options": {},
        "seed": 0,
        "samples": 100,
        "loss": "auto",
        "kind": "mask",
        "source": "layer",
        "status": "ok",
        "metric": "accuracy",
        "higher_is_better": True,
        "percent": True,
        "metrics": {"accuracy": 0.8, "loss": 0.5, "kl": 0.1},
        "dense": {"accuracy": 0.9, "loss": 0.3},
        "layer_error": 0.25,
        "layer_errors": {"fc1": 0.25},
        "left_out": [],
        "kept": 10,
        "total": 100,
        "wall_s": 2.0,
        "cpu_s": 1.5,
        "peak_mib": 300.0,
        "base_mib": 200.0,
        **fields,
    }
    names = ("model", "density", "method", "options", "seed", "samples", "loss")
    out.setdefault("key", record_key({n: out[n] for n in names}))
    return out


@pytest.fixture
def record() -> Callable[..., dict[str, Any]]:
    return make_record
