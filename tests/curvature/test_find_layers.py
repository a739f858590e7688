"""Which layers take part: patterns, reparametrised weights."""

from __future__ import annotations

import pytest
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

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
