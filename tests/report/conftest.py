"""Folders of real runs, made once: small networks, pruned by the command itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from optiprune.cli import app

USER_CODE = """
import torch
from torch import nn

def load():
    torch.manual_seed(0)
    widths = (12, 16, 140, 4)
    layers = [(nn.Linear(a, b), nn.ReLU()) for a, b in zip(widths, widths[1:])]
    return nn.Sequential(*[part for pair in layers for part in pair][:-1])

def batches():
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(160, 12, generator=generator) * 2
    return [(x[i : i + 32], x[i : i + 32, :4].argmax(1)) for i in range(0, 160, 32)]

def evaluate(model):
    x, y = batches()[-1]
    with torch.no_grad():
        return {"accuracy": float((model(x).argmax(1) == y).double().mean())}
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
"""

GLOBAL = """
objective = "global"
scope = "layer"
refit = true
[batches]
size = 48
steps = 6
[tune]
epochs = 2
"""
LAYERS = """
objective = "reconstruction"
refit = true
[tune]
epochs = 2
[solver]
name = "tabu"
"""
OWL = '[allocation]\nmethod = "owl"\n'


def command(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(a) for a in arguments], env={"COLUMNS": "200"})


def prune(folder: Path, options: str, *arguments: object) -> Path:
    """The results of a run, in ``folder``."""
    folder.mkdir(parents=True)
    (folder / "user.py").write_text(USER_CODE)
    (folder / "run.toml").write_text(CONFIG + options)
    done = command("prune", folder / "run.toml", *arguments)
    assert done.exit_code == 0, done.output + done.stderr
    return folder / "results"


@pytest.fixture(scope="session")
def global_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prune(tmp_path_factory.mktemp("runs") / "global", GLOBAL)


@pytest.fixture(scope="session")
def layer_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prune(tmp_path_factory.mktemp("runs") / "layers", LAYERS + OWL)


@pytest.fixture(scope="session")
def killed_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed when two of its three layers were on disk."""
    folder = tmp_path_factory.mktemp("runs") / "killed"
    folder.mkdir()
    code = USER_CODE.replace("import torch\n", "import time\nimport torch\n", 1)
    (folder / "user.py").write_text(code)
    (folder / "run.toml").write_text(CONFIG + LAYERS)
    script = (
        "import os, signal, sys\n"
        "from optiprune.engine.steps import JournalSteps\n"
        "from optiprune.cli import app\n"
        "put, done = JournalSteps.put, []\n"
        "def counted(self, key, *rest):\n"
        "    put(self, key, *rest)\n"
        "    done.append(key)\n"
        "    if sum(k.startswith('layer/') for k in done) == 2:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "JournalSteps.put = counted\n"
        "app(['prune', sys.argv[1]])\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, str(folder / "run.toml")],
        capture_output=True,
        text=True,
        env=os.environ,
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    return folder / "results"
