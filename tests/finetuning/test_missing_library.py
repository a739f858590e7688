"""A library that is not there is asked for by the extra that brings it."""

from __future__ import annotations

import sys

import pytest
from torch import nn

import optiprune.finetuning as finetuning
from optiprune.masks import MaskSet


@pytest.mark.parametrize(
    ("name", "library", "module", "extra"),
    [
        ("KeepMasksInTrainer", "transformers", "trainer", "transformers"),
        ("KeepMasksInLightning", "lightning.pytorch", "lightning_callback", "lightning"),
    ],
)
def test_callbacks(monkeypatch, name, library, module, extra):
    monkeypatch.delitem(sys.modules, f"optiprune.finetuning.{module}", raising=False)
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ImportError, match=rf"{name} needs .* pip install 'optiprune\[{extra}\]'"):
        getattr(finetuning, name)
    with pytest.raises(AttributeError, match="has no attribute 'KeepMasksInTrainers'"):
        _ = finetuning.KeepMasksInTrainers


def test_peft(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    linear = nn.Linear(2, 2)
    with pytest.raises(ImportError, match=r"pip install 'optiprune\[transformers\]'"):
        finetuning.merge_peft(linear, MaskSet.from_model(linear))
