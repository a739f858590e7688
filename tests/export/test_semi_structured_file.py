"""2:4 models as files: checked where there is no GPU, converted where there is one."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune.export import load_packed, load_semi_structured, save_semi_structured
from optiprune.masks import MaskSet
from optiprune.semi_structured import SemiStructuredError


def model_2_4(rows=64, cols=128, dtype=torch.float16):
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Linear(cols, rows))
    with torch.no_grad():
        model[0].weight.copy_(torch.randn(rows, cols, generator=g))
    model.to(dtype)
    order = torch.rand(rows, cols // 4, 4, generator=g).argsort(-1)
    masks = MaskSet({"0.weight": (order < 2).reshape(rows, cols)})
    masks.apply(model).make_permanent()
    return model, masks


def test_a_file_of_nine_bits_a_weight(tmp_path):
    model, masks = model_2_4()
    path = tmp_path / "m.safetensors"
    save_semi_structured(model, masks, path)
    n = 64 * 128
    assert path.stat().st_size < n * 9 // 8 + 64 * 2 + 1500
    other = nn.Sequential(nn.Linear(128, 64)).half()
    assert load_packed(path, other) == masks
    assert torch.equal(other[0].weight, model[0].weight)


@pytest.mark.parametrize(
    ("case", "text"),
    [
        (lambda: model_2_4(rows=48), "shape 48 x 128 is no multiple of 32 x 64"),
        (lambda: model_2_4(dtype=torch.float32), r"dtype torch.float32; model.half\(\)"),
    ],
)
def test_what_no_gpu_can_take_is_refused_anywhere(tmp_path, case, text):
    model, masks = case()
    with pytest.raises(SemiStructuredError, match=text):
        save_semi_structured(model, masks, tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_masks_that_are_not_2_4_are_refused(tmp_path):
    model, masks = model_2_4()
    mask = masks["0.weight"].clone()
    mask[3, 4:8] = True
    with pytest.raises(SemiStructuredError, match=r"row 3, group 1 .* keeps 4 of 4"):
        save_semi_structured(model, MaskSet({"0.weight": mask}), tmp_path / "m.safetensors")
    assert list(tmp_path.iterdir()) == []


def test_loading_needs_a_gpu(tmp_path):
    model, masks = model_2_4()
    save_semi_structured(model, masks, tmp_path / "m.safetensors")
    with pytest.raises(SemiStructuredError, match="device 'cpu' cannot be used"):
        load_semi_structured(tmp_path / "m.safetensors", model, "cpu")


@pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability() < (8, 0),
    reason="needs a CUDA device of capability 8.0",
)
def test_outputs_stay_on_a_device_that_can(tmp_path):
    model, masks = model_2_4(128, 128)
    save_semi_structured(model, masks, tmp_path / "m.safetensors")
    x = torch.randn(64, 128, device="cuda", dtype=torch.float16)
    fresh = nn.Sequential(nn.Linear(128, 128)).half()
    with torch.no_grad():
        want = model.cuda()(x)
        assert load_semi_structured(tmp_path / "m.safetensors", fresh) == ["0.weight"]
        torch.testing.assert_close(fresh(x), want, rtol=1e-2, atol=1e-2)
