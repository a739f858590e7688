"""Adapters of the peft package: what a mask cuts off is told, and never lost in silence."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from optiprune.finetuning import FineTuningError, merge_peft
from optiprune.masks import MaskError, MaskSet

peft = pytest.importorskip("peft")


def masked() -> tuple[nn.Module, MaskSet]:
    g = torch.Generator().manual_seed(0)
    inner = nn.Sequential(nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 3))
    model = nn.ModuleDict({"body": inner, "head": nn.Linear(3, 2)})
    model.forward = lambda x: model["head"](model["body"](x))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    masks = MaskSet(
        {f"body.{i}.weight": torch.rand(inner[i].weight.shape, generator=g) < 0.5 for i in (0, 2)}
    )
    masks.apply(model).make_permanent()
    return model, masks


def adapted(targets=("body.0", "body.2")):
    model, masks = masked()
    wrapped = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=list(targets)))
    g = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for n, p in wrapped.named_parameters():
            if "lora_" in n:
                p.copy_(torch.randn(p.shape, generator=g))
    return model, masks, wrapped


def test_by_default_a_loss_is_refused_and_nothing_is_changed():
    _, masks, wrapped = adapted()
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(2))
    before = {n: p.detach().clone() for n, p in wrapped.named_parameters()}
    want = wrapped(x)
    with pytest.raises(FineTuningError, match=r"loses up to \d+% of what .* 'body\.\d\.weight'"):
        merge_peft(wrapped, masks)
    assert list(before) == [n for n, _ in wrapped.named_parameters()]
    assert all(torch.equal(p, before[n]) for n, p in wrapped.named_parameters())
    assert torch.equal(wrapped(x), want)


def test_an_accepted_loss_is_told_and_the_masks_hold():
    base, masks, wrapped = adapted()
    dense, _, _ = adapted()
    w0 = dense["body"][0].weight.detach().clone()
    layer = wrapped.base_model.model["body"][0]
    change = layer.get_delta_weight("default").detach()
    got = merge_peft(wrapped, masks, accept_loss=1.0)
    assert got.model is base
    assert type(got.model["body"][0]) is nn.Linear
    mask = masks["body.0.weight"]
    lost = change[~mask].norm() / change.norm()
    assert math.isclose(got.lost["body.0.weight"], lost, rel_tol=1e-5)
    assert 0.5 < lost < 0.9
    merged = got.model["body"][0].weight.detach()
    torch.testing.assert_close(merged, torch.where(mask, w0 + change, 0.0))
    for name, m in masks.items():
        assert not got.model.get_parameter(name)[~m].any()
    assert set(got.lost) == set(masks)


def test_adapters_on_weights_without_a_mask_lose_nothing():
    base, masks, wrapped = adapted(targets=("head",))
    x = torch.randn(7, 12, generator=torch.Generator().manual_seed(2))
    want = wrapped(x)
    got = merge_peft(wrapped, masks)
    assert got.lost == {}
    torch.testing.assert_close(got.model(x), want)
    assert base["head"].weight.shape == (2, 3)


def test_refusals():
    model, masks, wrapped = adapted()
    with pytest.raises(FineTuningError, match=r"expected a peft.PeftModel, got a ModuleDict"):
        merge_peft(model, masks)
    with pytest.raises(FineTuningError, match=r"accept_loss must be from 0 to 1"):
        merge_peft(wrapped, masks, accept_loss=2.0)
    with pytest.raises(MaskError, match=r"has no parameter 'body.9.weight'"):
        merge_peft(wrapped, MaskSet({"body.9.weight": torch.ones(2, 2, dtype=torch.bool)}))
    wrapped.merge_adapter()
    with pytest.raises(FineTuningError, match=r"is not zero where pruned"):
        merge_peft(wrapped, masks, accept_loss=1.0)
