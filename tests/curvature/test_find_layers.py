"""Which layers take part: patterns, reparametrised weights, forwards of their own."""

from __future__ import annotations

import types

import pytest
import torch
from torch import nn
from torch.ao.nn import qat
from torch.ao.quantization import get_default_qat_qconfig
from torch.nn.utils.parametrizations import weight_norm
from torch.nn.utils.parametrize import register_parametrization

from optiprune.curvature.layers import LayerError, find_layers, require_matches


def model() -> nn.Module:
    parts = {"encoder": nn.Linear(4, 4), "middle": nn.Linear(4, 4), "head": nn.Linear(4, 2)}
    out = nn.Sequential()
    for name, part in parts.items():
        out.add_module(name, part)
    return out


@pytest.mark.parametrize("option", ["include", "exclude"])
def test_pattern_that_matches_nothing_is_an_error_with_a_suggestion(option: str) -> None:
    with pytest.raises(LayerError, match=f"{option} pattern 'haed' .* did you mean 'head'"):
        find_layers(model(), **{option: ["haed"]})


def test_patterns_that_match_are_taken() -> None:
    assert [x.name for x in find_layers(model(), exclude=["h*", "encoder"])] == ["middle"]
    # a layer that another option leaves out is still there to be excluded
    assert [x.name for x in find_layers(model(), include=["middle"], exclude=["head"])] == [
        "middle"
    ]
    require_matches("layers.sparsity", ["enc*"], ["encoder"])
    with pytest.raises(LayerError, match=r"layers\.sparsity pattern 'x' .* there are: encoder"):
        require_matches("layers.sparsity", ["x"], ["encoder"])


def test_each_reparametrised_layer_is_excluded_on_its_own() -> None:
    net = nn.Sequential(weight_norm(nn.Linear(3, 3)), weight_norm(nn.Linear(3, 3)), nn.Linear(3, 2))
    with pytest.raises(LayerError, match="layer '1' has no plain weight"):
        find_layers(net, exclude=["0"])
    assert [x.name for x in find_layers(net, exclude=["0", "1"])] == ["2"]


class Padded(nn.Conv2d):
    def forward(self, x):
        return super().forward(nn.functional.pad(x, (0, 1, 0, 1)))


class Standardised(nn.Conv2d):
    def _conv_forward(self, x, weight, bias):
        return super()._conv_forward(x, weight - weight.mean(), bias)


class Scaled(nn.Linear):
    def forward(self, x):
        return super().forward(2 * x)


class ScaledFurther(Scaled):
    pass


def _replaced() -> nn.Module:
    layer = nn.Linear(3, 3)
    layer.forward = types.MethodType(Scaled.forward, layer)
    return layer


def _wrapped() -> nn.Module:
    layer = nn.Linear(3, 3)
    before = layer.forward
    layer.forward = lambda x: before(x)
    return layer


REFUSED = {
    "padding": (lambda: Padded(3, 3, 2), r"Padded\) has a forward .* plain torch.nn.Conv2d of"),
    "weights": (lambda: Standardised(3, 3, 2), r"Standardised\) has a _conv_forward of its own"),
    "inputs": (lambda: Scaled(3, 3), r"Scaled\) has a forward .* torch.nn.Linear of the same"),
    "inherited": (lambda: ScaledFurther(3, 3), r"ScaledFurther\) has a forward"),
    "replaced on the module": (_replaced, r"torch.nn.modules.linear.Linear\) has a forward"),
    "wrapped on the module": (_wrapped, r"torch.nn.modules.linear.Linear\) has a forward"),
    "fake quantised": (
        lambda: qat.Linear(3, 3, qconfig=get_default_qat_qconfig()),
        r"qat.modules.linear.Linear\) has a forward",
    ),
    "lazy, never run": (lambda: nn.LazyLinear(3), r"\(LazyLinear\) has no weights yet; run"),
    "lazy convolution, never run": (lambda: nn.LazyConv2d(3, 2), "has no weights yet; run"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_layer_that_computes_its_output_otherwise_is_refused_and_can_be_excluded(kind):
    make, message = REFUSED[kind]
    net = nn.Sequential(nn.Linear(3, 3), make())
    with pytest.raises(LayerError, match=f"layer '1' .*{message}"):
        find_layers(net)
    assert [x.name for x in find_layers(net, exclude=["1"])] == ["0"]


class Noted(nn.Linear):
    """A subclass that only carries more."""

    note = "as it is"


class Shift(nn.Module):
    def forward(self, x):
        return x + 1


def _biased() -> nn.Module:
    layer = nn.Linear(3, 3)
    register_parametrization(layer, "bias", Shift())
    return layer


def _lazy() -> nn.Module:
    layer = nn.LazyLinear(3)
    layer(torch.zeros(1, 3))
    return layer


@pytest.mark.parametrize(
    "make",
    [lambda: Noted(3, 3), _biased, _lazy, lambda: nn.MultiheadAttention(3, 1).out_proj],
    ids=["subclass", "parametrised bias", "lazy, run once", "torch's own subclass"],
)
def test_a_subclass_that_leaves_forward_alone_takes_part(make):
    assert [x.name for x in find_layers(nn.Sequential(make()))] == ["0"]


def test_every_module_of_a_shared_weight_must_be_plain():
    net = nn.Sequential(nn.Linear(3, 3), Scaled(3, 3))
    net[1].weight = net[0].weight
    with pytest.raises(LayerError, match=r"layer '1' .*Scaled"):
        find_layers(net)
