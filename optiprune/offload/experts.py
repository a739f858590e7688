"""Experts of a mixture as Linear layers, one for each matrix, in place of two fused tensors.

Transformers keeps all experts of a block in two parameters of three dimensions. As layers of their
own they see the tokens that the router sends them, and each is pruned from those.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from optiprune.curvature.chain import same_but_for_rounding

from .errors import ModelDirectoryError

__all__ = ["Expert", "LinearExperts", "fused_experts", "require_equal"]

_FORWARD = ["self", "hidden_states", "top_k_index", "top_k_weights"]
_TOKENS = 16


class Expert(nn.Module):
    """A gated perceptron: ``down(act(gate(x)) * up(x))``."""

    def __init__(self, width: int, hidden: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(width, hidden, bias=False)
        self.up_proj = nn.Linear(width, hidden, bias=False)
        self.down_proj = nn.Linear(hidden, width, bias=False)
        self._act = act

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(self._act(self.gate_proj(x)) * self.up_proj(x))
        return out


class LinearExperts(nn.ModuleList):
    """All experts of a block, called as the fused module is.

    Parameters
    ----------
    fused : see `fused_experts`
    """

    def __init__(self, fused: Any) -> None:
        count, double, width = fused.gate_up_proj.shape
        super().__init__([Expert(width, double // 2, fused.act_fn) for _ in range(count)])
        self.width, self.hidden = width, double // 2

    def fused(self) -> dict[str, Tensor]:
        """The two tensors of the module that these stand for."""
        each: list[Any] = list(self)
        up = [torch.cat([e.gate_proj.weight, e.up_proj.weight]) for e in each]
        down = [e.down_proj.weight for e in each]
        return {"gate_up_proj": torch.stack(up), "down_proj": torch.stack(down)}

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """Tokens (n, width), the experts of each (n, k) and their shares (n, k) -> (n, width)."""
        out = torch.zeros_like(hidden_states)
        for number, expert in enumerate(self):
            token, place = torch.where(top_k_index == number)
            if len(token):
                share = top_k_weights[token, place, None]
                out.index_add_(0, token, (expert(hidden_states[token]) * share).to(out.dtype))
        return out


def fused_experts(module: nn.Module) -> bool:
    """Whether a module holds experts as ``gate_up_proj`` (experts, 2 x hidden, width) and
    ``down_proj`` (experts, width, hidden), without biases, and combines them in the plain way."""
    up, down = (getattr(module, name, None) for name in ("gate_up_proj", "down_proj"))
    if not (isinstance(up, nn.Parameter) and isinstance(down, nn.Parameter)):
        return False
    if len(list(module.parameters(recurse=False))) != 2 or up.ndim != 3 or down.ndim != 3:
        return False
    if (down.shape[0], down.shape[1], 2 * down.shape[2]) != (up.shape[0], up.shape[2], up.shape[1]):
        return False
    plain = list(inspect.signature(type(module).forward).parameters) == _FORWARD
    return plain and callable(getattr(module, "act_fn", None))


def require_equal(name: str, fused: nn.Module, experts: LinearExperts) -> None:
    """Raise `ModelDirectoryError` unless both give the same for random tokens.

    Parameters
    ----------
    fused : the module of transformers, on the meta device
    experts : with weights
    """
    with torch.no_grad():
        weights = experts.fused()
        like = weights["down_proj"]
        draw = torch.Generator(device="cpu").manual_seed(0)
        x = torch.randn(_TOKENS, experts.width, generator=draw).to(like)
        index = torch.randint(len(experts), (_TOKENS, 1), generator=draw).to(like.device)
        share = torch.rand(_TOKENS, 1, generator=draw).to(like)
        want = torch.func.functional_call(fused, weights, (x, index, share))
        got = experts(x, index, share)
    if not same_but_for_rounding(got, want):
        raise ModelDirectoryError(
            f"the experts of '{name}' ({type(fused).__name__}) combine their matrices in another "
            f"way than act(gate) * up (off by {float((got - want).abs().max()):.3g} of "
            f"{float(want.abs().max()):.3g}); use optimize_masks on the whole model"
        )
