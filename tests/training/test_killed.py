"""A process that is killed at random moments ends with the weights of one that was not."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SCRIPT = """
import sys, time
import torch
from torch import nn
from optiprune.training import Callback, train

torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.2),
                      nn.Flatten(), nn.Linear(8 * 64, 4))
g = torch.Generator().manual_seed(0)
x, y = torch.randn(200, 1, 10, 10, generator=g), torch.randint(4, (200,), generator=g)


class Slow(Callback):
    def after_step(self, step):
        print(step.index, flush=True)
        time.sleep(0.02)


optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 8 * 13)
train(model, [(x, y)], optimizer, epochs=8, batch_size=16, scheduler=scheduler,
      callbacks=[Slow()], checkpoint=sys.argv[1], checkpoint_steps=1, seed=1)
torch.save([v.clone() for v in model.state_dict().values()], sys.argv[2])
"""


def digest(file: Path) -> str:
    import torch

    sums = hashlib.sha256()
    for value in torch.load(file, weights_only=True):
        sums.update(value.numpy().tobytes())
    return sums.hexdigest()


def test_three_kills_change_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    env = {**os.environ, "OMP_NUM_THREADS": "1"}

    def start(name: str) -> subprocess.Popen[str]:
        command = [sys.executable, script, tmp_path / f"{name}.ckpt", tmp_path / f"{name}.pt"]
        return subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True)

    start("whole").communicate()
    assert (tmp_path / "whole.pt").exists()
    draw = random.Random(int.from_bytes(os.urandom(4), "big"))
    killed = 0
    for _ in range(3):
        process = start("cut")
        assert process.stdout is not None
        for _ in range(draw.randrange(3, 20)):  # so many steps, and some part of the next
            process.stdout.readline()
        time.sleep(draw.random() * 0.04)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        killed += process.returncode == -signal.SIGKILL
        assert not (tmp_path / "cut.pt").exists()
    assert killed == 3
    out, _ = start("cut").communicate()
    assert int(out.split()[0]) >= 9  # it did go on
    assert digest(tmp_path / "whole.pt") == digest(tmp_path / "cut.pt")
