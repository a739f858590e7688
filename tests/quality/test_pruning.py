"""The rules of the comparison are held, and a refit after a mask is least squares."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from benchmarks.quality.baselines.refitted import refit_layers
from benchmarks.quality.grid import Cell, Density
from benchmarks.quality.methods import Method, own_method
from benchmarks.quality.pruning import BrokenRuleError, check_pruned, prune_with
from optiprune.curvature import CalibrationSet, find_layers

MASK = Method("a", "callable", "mask", "m:f")
MOVES = Method("a", "callable", "weights", "m:f")


def net(bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6, bias=bias), nn.ReLU(), nn.Linear(6, 4, bias=bias)).eval()


def state(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def half(model: nn.Module) -> dict[str, Tensor]:
    """The first half of every row is kept, and the rest zeroed."""
    masks = {}
    for layer in find_layers(model):
        mask = torch.zeros(layer.shape, dtype=torch.bool)
        mask[:, : layer.cols // 2] = True
        model.get_parameter(layer.parameter).data.mul_(mask)
        masks[layer.parameter] = mask
    return masks


def check(change: Any = None, method: Method = MASK, density: str = "0.5") -> tuple[int, int]:
    model = net()
    before = state(model)
    masks, layers = half(model), find_layers(model)
    if change is not None:
        change(model, masks)
    return check_pruned(before, model, layers, masks, Density.parse(density), method)


def test_kept_weights_are_counted() -> None:
    assert check() == (6 * 4 + 4 * 3, 6 * 8 + 4 * 6)


def move(model: nn.Module, masks: dict[str, Tensor]) -> None:
    model[0].weight.data[0, 0] += 1e-3


def move_bias(model: nn.Module, masks: dict[str, Tensor]) -> None:
    model[2].bias.data[0] += 1e-3


def leak(model: nn.Module, masks: dict[str, Tensor]) -> None:
    model[0].weight.data[0, 7] = 1e-9


def break_number(model: nn.Module, masks: dict[str, Tensor]) -> None:
    model[0].weight.data[0, 0] = float("nan")


def forget(model: nn.Module, masks: dict[str, Tensor]) -> None:
    del masks["2.weight"]


@pytest.mark.parametrize(
    ("change", "method", "density", "words"),
    [
        (move, MASK, "0.5", "0.weight: kept weights were changed"),
        (move_bias, MASK, "0.5", "2.bias was changed"),
        (leak, MOVES, "0.5", "not zero"),
        (break_number, MOVES, "0.5", "NaN"),
        (forget, MASK, "0.5", "no mask for 2.weight"),
        (None, MASK, "0.3", "density 0.3 allows 26"),  # 6 ceil(2.4) + 4 ceil(1.8)
        (None, MASK, "2:4", "keeps 4 of 4"),
    ],
)
def test_what_breaks_a_rule_is_refused(
    change: Any, method: Method, density: str, words: str
) -> None:
    if density == "2:4":
        model = nn.Sequential(nn.Linear(8, 6)).eval()
        before = state(model)
        masks = half(model)
        with pytest.raises(BrokenRuleError, match=words):
            check_pruned(before, model, find_layers(model), masks, Density.parse(density), method)
        return
    with pytest.raises(BrokenRuleError, match=words):
        check(change, method, density)


def test_weights_may_be_moved_by_a_method_that_says_so() -> None:
    assert check(move, MOVES) == check(move_bias, MOVES) == (36, 72)


def test_refit_finds_the_least_squares_of_every_row() -> None:
    model = nn.Sequential(nn.Linear(8, 5)).eval()
    x = torch.randn(100, 8, generator=torch.Generator().manual_seed(1))
    layers = find_layers(model)
    mask = torch.rand(5, 8, generator=torch.Generator().manual_seed(2)) < 0.5
    masks = {"0.weight": mask}
    dense = model[0].weight.detach()
    values = {"0.weight": dense * mask}
    data = CalibrationSet.collect([x], torch.device("cpu"))
    fitted = refit_layers(model, layers, masks, values, data, chunk=30)["0.weight"]
    for row in range(5):
        at = mask[row]
        # the damping of 1e-4 of the mean diagonal moves little
        best = torch.linalg.lstsq(x[:, at].double(), (x @ dense[row]).double()[:, None]).solution
        assert fitted[row, at].tolist() == pytest.approx(best.flatten().tolist(), abs=2e-3)
        assert not fitted[row, ~at].any()
    assert torch.equal(model[0].weight, dense)  # the model is not written to


def test_optiprune_prunes_the_layers_it_is_given() -> None:
    model = net()
    dense = copy.deepcopy(model)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    layers = find_layers(model)
    cell = Cell("m", Density(0.5), own_method("a", {"refit": False}), 0, 64)
    masks = prune_with(cell, model, layers, [x], chunk=64, threads=1)
    assert check_pruned(state(dense), model, layers, masks, cell.density, cell.method) == (36, 72)


def test_a_preset_is_an_option_like_others() -> None:
    model = net()
    dense = copy.deepcopy(model)
    x = torch.randn(64, 8, generator=torch.Generator().manual_seed(3))
    layers = find_layers(model)
    method = own_method("a", {"preset": "fast"})
    cell = Cell("m", Density(0.5), method, 0, 64)
    masks = prune_with(cell, model, layers, [x], chunk=64, threads=1)
    assert check_pruned(state(dense), model, layers, masks, cell.density, method) == (36, 72)
    assert method.options == {"preset": "fast"}  # nothing was written into it
