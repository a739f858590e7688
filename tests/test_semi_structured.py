"""Which weights can be stored as semi-structured tensors, and why not."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune.masks import MaskSet
from optiprune.semi_structured import (
    SemiStructuredError,
    ineligible_layers,
    to_semi_structured,
)


def case(rows=64, cols=64, dtype=torch.float16, device="cpu"):
    model = nn.Sequential(nn.Linear(cols, rows)).to(device=device, dtype=dtype)
    mask = torch.tensor([1, 0, 0, 1], dtype=torch.bool).repeat(rows, cols // 4)
    masks = MaskSet({"0.weight": mask})
    masks.apply(model)
    return model, masks


def reason(model, masks):
    (found,) = ineligible_layers(model, masks)
    assert found.parameter == "0.weight"
    return found.reason


def test_on_a_cpu_only_the_device_is_missing():
    model, masks = case()
    before = model[0].weight
    assert reason(model, masks).startswith("device 'cpu'")
    with pytest.raises(SemiStructuredError, match=r"1 of 1 parameters .* '0.weight': device 'cpu'"):
        to_semi_structured(model, masks)
    assert to_semi_structured(model, masks, strict=False) == []
    assert model[0].weight is before


def test_every_other_reason_comes_before_the_device():
    assert "shape 48 x 64 is no multiple of 32 x 64" in reason(*case(rows=48))
    assert "dtype torch.float32" in reason(*case(dtype=torch.float32))
    model, masks = case()
    with torch.no_grad():
        model[0].weight[0, 1] = 1.0
    assert "apply the masks first" in reason(model, masks)
    model, _ = case()
    dense = MaskSet({"0.weight": torch.ones(64, 64, dtype=torch.bool)})
    assert "row 0, group 0" in reason(model, dense)
    conv = nn.Sequential(nn.Conv2d(4, 8, 1))
    masks = MaskSet({"0.weight": torch.zeros(8, 4, 1, 1, dtype=torch.bool)})
    assert "Conv2d, and only Linear" in reason(conv, masks)


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs a CUDA device of capability 8.0",
)
def test_outputs_stay_on_a_device_that_can():
    model, masks = case(128, 128, device="cuda")
    x = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    with torch.no_grad():
        before = model(x)
        assert to_semi_structured(model, masks) == ["0.weight"]
        torch.testing.assert_close(model(x), before, rtol=1e-2, atol=1e-2)
