"""Interchange with torch.nn.utils.prune."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from optiprune.masks import MaskError, MaskSet

T, F = True, False


def net(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    g = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4)).to(dtype)
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return model


def half(model: nn.Module) -> MaskSet:
    g = torch.Generator().manual_seed(1)
    named = [(n, p) for n, p in model.named_parameters() if p.ndim > 1]
    return MaskSet({n: torch.rand(p.shape, generator=g) < 0.5 for n, p in named})


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_there_and_back(dtype):
    model, x = net(dtype), torch.ones(2, 1, 4, 4, dtype=dtype)
    masks = half(model)
    dense = model[3].weight.detach().clone()
    with masks.apply(model):
        expected = model(x)
    masks.to_prune(model)
    assert torch.equal(model(x), expected)
    assert torch.equal(model[3].weight_orig, dense)
    assert torch.equal(model[3].weight_mask, masks["3.weight"].to(dtype))
    assert MaskSet.from_prune(model) == masks

    MaskSet.remove_prune(model, ["3.weight"], dense=True)
    assert torch.equal(model[3].weight, dense)
    assert list(MaskSet.from_prune(model)) == ["0.weight"]
    MaskSet.remove_prune(model)
    assert dict(model.named_parameters()).keys() == dict(net().named_parameters()).keys()
    assert not dict(model.named_buffers())
    assert MaskSet.from_model(model, ["0.weight"])["0.weight"].equal(masks["0.weight"])
    with pytest.raises(MaskError, match="no parameter pruned by torch"):
        MaskSet.from_prune(model)
    with pytest.raises(MaskError, match=r"'3.weight' is not pruned by torch"):
        MaskSet.remove_prune(model, ["3.weight"])


def test_masks_made_by_torch_are_read():
    model = net()
    prune.l1_unstructured(model[3], "weight", amount=30)
    prune.ln_structured(model[0], "weight", amount=1, n=2, dim=0)
    prune.random_unstructured(model[3], "bias", amount=1)
    masks = MaskSet.from_prune(model)
    assert [(c.name, c.kept) for c in masks.per_parameter()] == [
        ("0.weight", 18),
        ("3.weight", 18),
        ("3.bias", 3),
    ]
    masks.make_permanent(model)
    assert not hasattr(model[3], "weight_orig")
    assert MaskSet.from_model(model, list(masks)) == masks


def test_make_permanent_replaces_torchs_mask_and_rolls_back():
    model = net()
    masks = half(model)
    masks.invert().to_prune(model)
    bad = masks.with_fitted({"3.weight": torch.full((4, 12), 1e300, dtype=torch.float64)})
    with pytest.raises(MaskError, match=r"infinite of 48 values"):
        bad.make_permanent(model)
    assert MaskSet.from_prune(model) == masks.invert()
    masks.make_permanent(model)
    reference = net()
    masks.apply(reference)
    assert torch.equal(model[3].weight, reference[3].weight)


def test_fitted_weights_go_to_the_kept_entries_of_the_dense_ones():
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 2.0]]))
    masks = MaskSet({"weight": torch.tensor([[F, T]])}, fitted={"weight": torch.tensor([[7.0, 8]])})
    masks.to_prune(model)
    assert model.weight_orig.tolist() == [[1.0, 8.0]]
    assert model.weight.tolist() == [[0.0, 8.0]]


def test_tied_weights_are_masked_in_both_modules():
    # torch's own functions on one of two tied modules leave the other one dense
    model = nn.ModuleDict({"a": nn.Linear(3, 3, bias=False), "b": nn.Linear(3, 3, bias=False)})
    model["b"].weight = model["a"].weight
    mask = torch.eye(3, dtype=torch.bool)
    dense = model["a"].weight.detach().clone()
    MaskSet({"a.weight": mask}).to_prune(model)
    x = torch.ones(1, 3)
    assert torch.equal(model["a"](x), x @ (dense * mask).t())
    assert torch.equal(model["b"](x), x @ (dense * mask).t())
    assert model["a"].weight_orig is model["b"].weight_orig
    MaskSet.remove_prune(model, dense=True)
    assert model["a"].weight is model["b"].weight
    assert torch.equal(model["a"].weight, dense)


def test_one_module_under_two_names():
    shared = nn.Linear(3, 3)
    model = nn.Sequential(shared, nn.ReLU(), shared)
    mask = torch.eye(3, dtype=torch.bool)
    MaskSet({"2.weight": mask}).to_prune(model)
    assert MaskSet.from_prune(model) == MaskSet({"0.weight": mask, "2.weight": mask})
    MaskSet.remove_prune(model)
    assert not hasattr(shared, "weight_orig")


def test_a_mask_that_is_no_mask_is_refused():
    model = nn.Linear(2, 2)
    prune.identity(model, "weight")
    model.weight_mask[0, 0] = 0.5
    with pytest.raises(MaskError, match="weight_mask holds values other than 0 and 1"):
        MaskSet.from_prune(model)


def test_a_failure_half_way_leaves_the_model_dense(monkeypatch):
    model = net()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    real, calls = prune.custom_from_mask, []

    def breaks(module, name, mask):
        calls.append(name)
        if len(calls) == 2:
            raise RuntimeError("broken")
        return real(module, name, mask)

    monkeypatch.setattr(prune, "custom_from_mask", breaks)
    masks = half(model).with_fitted({"0.weight": torch.ones(3, 1, 3, 3)})
    with pytest.raises(RuntimeError, match="broken"):
        masks.to_prune(model)
    assert len(calls) == 2
    after = dict(model.named_parameters())
    assert after.keys() == before.keys()
    assert all(torch.equal(after[n], before[n]) for n in before)
