"""Experts as Linear layers give what the fused ones give."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune.offload import ModelDirectoryError
from optiprune.offload.experts import LinearExperts, fused_experts, require_equal
from optiprune.offload.places import owner_of

from .conftest import CONFIGS, transformers


def experts_of(family: str) -> nn.Module:
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(CONFIGS[family]())
    for p in model.parameters():
        nn.init.normal_(p)
    return next(m for m in model.modules() if fused_experts(m))


def linear(fused: nn.Module) -> LinearExperts:
    experts = LinearExperts(fused)
    tensors = {"gate_up_proj": fused.gate_up_proj, "down_proj": fused.down_proj}
    for name, p in experts.named_parameters():
        place = owner_of(f"mlp.experts.{name}", False, experts.hidden)
        p.data.copy_(place.of(tensors[place.tensor.rpartition(".")[2]]))
    return experts


@pytest.mark.parametrize("family", ["mixtral", "qwen3_moe"])
def test_they_give_the_same_and_fuse_back(family: str) -> None:
    fused = experts_of(family)
    experts = linear(fused)
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(40, 32, generator=draw)
    index = torch.stack([torch.randperm(4, generator=draw)[:2] for _ in range(40)])
    share = torch.rand(40, 2, generator=draw)
    with torch.no_grad():
        assert torch.allclose(
            experts(x, index, share), fused(x, index, share), rtol=1e-4, atol=1e-2
        )
        for name, value in experts.fused().items():
            assert torch.equal(value, getattr(fused, name))
    require_equal("experts", fused, experts)


def test_experts_that_combine_otherwise_are_refused() -> None:
    fused = experts_of("mixtral")
    experts = linear(fused)
    fused.act_fn = nn.Tanh()
    with pytest.raises(ModelDirectoryError, match="in another way"):
        require_equal("experts", fused, experts)


def test_other_modules_are_not_taken_for_experts() -> None:
    assert not fused_experts(nn.Linear(3, 3))
    fused = experts_of("mixtral")
    fused.gate_up_proj = nn.Parameter(torch.zeros(4, 97, 32))
    assert not fused_experts(fused)
