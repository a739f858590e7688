"""Masks on models: all or none, bit by bit back."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from optiprune.masks import MaskError, MaskSet

T, F = True, False


def net(seed: int = 0) -> nn.Sequential:
    g = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 4))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=g))
    return model


def half(model: nn.Module, seed: int = 1) -> MaskSet:
    g = torch.Generator().manual_seed(seed)
    return MaskSet(
        {
            n: torch.rand(p.shape, generator=g) < 0.5
            for n, p in model.named_parameters()
            if p.ndim > 1
        }
    )


def bits(model: nn.Module) -> dict[str, bytes]:
    return {
        n: p.detach().clone().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        for n, p in model.named_parameters()
    }


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.embed.weight


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("originals", ["device", "cpu"])
def test_apply_zeroes_the_pruned_and_revert_restores_every_bit(dtype, originals):
    model = net().to(dtype)
    masks = half(model)
    before, objects = bits(model), list(model.parameters())
    dense = {n: p.detach().clone() for n, p in model.named_parameters()}
    handle = masks.apply(model, originals=originals)
    for n, p in model.named_parameters():
        assert p.dtype == dtype
        if n in masks:
            assert torch.equal(p[masks[n]], dense[n][masks[n]])
            # +0.0, never the -0.0 that a product would leave
            assert torch.equal(p[~masks[n]].abs(), p[~masks[n]])
            assert not torch.signbit(p[~masks[n]]).any()
        else:
            assert torch.equal(p, dense[n])
    assert all(a is b for a, b in zip(objects, model.parameters(), strict=True))
    assert torch.equal(handle.original("0.weight"), dense["0.weight"])
    handle.revert()
    assert bits(model) == before
    assert not handle.active


def test_revert_restores_signed_zeros_and_undoes_training():
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[-0.0, 3.0]]))
    before = bits(model)
    with MaskSet({"weight": torch.tensor([[F, T]])}).apply(model):
        assert model.weight.tolist() == [[0.0, 3.0]]
        with torch.no_grad():
            model.weight.add_(1)
    assert bits(model)["weight"] == before["weight"]


def test_context_manager_reverts_on_an_exception():
    model = net()
    before = bits(model)
    with pytest.raises(RuntimeError, match="stop"), half(model).apply(model):
        raise RuntimeError("stop")
    assert bits(model) == before


def test_nested_applications_unwind():
    model = net()
    before = bits(model)
    with half(model, 1).apply(model):
        middle = bits(model)
        with half(model, 2).apply(model):
            assert bits(model) != middle
        assert bits(model) == middle
    assert bits(model) == before


def test_values_are_written_where_kept():
    model = nn.Linear(2, 2, bias=False)
    masks = MaskSet({"weight": torch.tensor([[T, F], [F, T]])})
    values = torch.tensor([[5.0, 6.0], [7.0, 8.0]], dtype=torch.float64)
    masks.apply(model, {"weight": values})
    assert model.weight.tolist() == [[5.0, 0.0], [0.0, 8.0]]
    assert model.weight.dtype == torch.float32


def test_fitted_weights_are_the_default_values():
    model = nn.Linear(2, 1, bias=False)
    dense = model.weight.detach().clone()
    masks = MaskSet({"weight": torch.tensor([[F, T]])}, fitted={"weight": torch.tensor([[1.0, 2]])})
    with masks.apply(model):
        assert model.weight.tolist() == [[0.0, 2.0]]
    with masks.apply(model, {}):
        assert model.weight.tolist() == [[0.0, dense[0, 1].item()]]


@pytest.mark.parametrize("keep", [True, False])
def test_all_or_nothing_kept(keep):
    model = net()
    before = bits(model)
    masks = MaskSet({"3.weight": torch.full((4, 12), keep)})
    with masks.apply(model):
        assert (bits(model) == before) is keep
        assert int((model[3].weight != 0).sum()) == (48 if keep else 0)
    assert bits(model) == before


def test_non_contiguous_parameters():
    weight = torch.randn(6, 4, generator=torch.Generator().manual_seed(0)).t()
    model = nn.Linear(6, 4, bias=False)
    model.weight = nn.Parameter(weight)
    assert not model.weight.is_contiguous()
    mask = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) < 0.5
    dense, stride = weight.clone(), model.weight.stride()
    conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    conv_dense = conv.weight.detach().clone()
    conv_mask = torch.rand(conv.weight.shape, generator=torch.Generator().manual_seed(2)) < 0.5
    both = nn.ModuleDict({"a": model, "b": conv})
    with MaskSet({"a.weight": mask, "b.weight": conv_mask}).apply(both):
        assert torch.equal(model.weight, dense * mask)
        assert torch.equal(conv.weight, conv_dense * conv_mask)
        assert model.weight.stride() == stride
    assert torch.equal(model.weight, dense)
    assert torch.equal(conv.weight, conv_dense)


# ---- tied weights


def test_tied_weights_listed_once_or_alike_twice():
    model = Tied()
    mask = torch.rand(5, 3, generator=torch.Generator().manual_seed(0)) < 0.5
    dense = model.embed.weight.detach().clone()
    for names in (["embed.weight"], ["head.weight"], ["embed.weight", "head.weight"]):
        handle = MaskSet(dict.fromkeys(names, mask)).apply(model)
        assert torch.equal(model.embed.weight, dense * mask)
        assert model.head.weight is model.embed.weight
        assert handle.names == tuple(names)
        handle.revert()
        assert torch.equal(model.head.weight, dense)


def test_tied_weights_with_conflicting_masks_are_refused():
    model = Tied()
    before = bits(model)
    other = torch.ones(5, 3, dtype=torch.bool)
    other[0, 0] = False
    masks = MaskSet({"embed.weight": torch.ones(5, 3, dtype=torch.bool), "head.weight": other})
    with pytest.raises(MaskError, match=r"'embed.weight' and 'head.weight' are tied .* 1 of 15"):
        masks.apply(model)
    assert bits(model) == before


def test_tied_weights_with_conflicting_values_are_refused():
    model = Tied()
    mask = torch.ones(5, 3, dtype=torch.bool)
    masks = MaskSet({"embed.weight": mask, "head.weight": mask})
    with pytest.raises(MaskError, match="tied, but their values differ"):
        masks.apply(model, {"embed.weight": torch.ones(5, 3), "head.weight": torch.zeros(5, 3)})
    masks.apply(model, {"head.weight": torch.ones(5, 3)})
    assert model.embed.weight.tolist() == [[1.0] * 3] * 5


def test_two_parameters_on_one_memory_count_as_tied():
    a = nn.Linear(3, 5, bias=False)
    b = nn.Linear(3, 5, bias=False)
    b.weight = nn.Parameter(a.weight.data)
    model = nn.ModuleList([a, b])
    ones, zeros = torch.ones(5, 3, dtype=torch.bool), torch.zeros(5, 3, dtype=torch.bool)
    with pytest.raises(MaskError, match=r"'0.weight' and '1.weight' are tied"):
        MaskSet({"0.weight": ones, "1.weight": zeros}).validate(model)
    c = nn.Linear(5, 3, bias=False)
    c.weight = nn.Parameter(a.weight.data.t())
    crossed = nn.ModuleList([a, c])
    with pytest.raises(MaskError, match="share memory in different layouts"):
        MaskSet({"0.weight": ones, "1.weight": ones.t()}).validate(crossed)


# ---- refusals, each with the model untouched


def nan_weight(model):
    with torch.no_grad():
        model[3].weight[1, 2] = float("nan")


def meta(model):
    model[3].to("meta")


def integer(model):
    model[3].weight = nn.Parameter(torch.ones(4, 12, dtype=torch.int64), requires_grad=False)


def gone(model):
    del model[3]


def other_shape(model):
    model[3] = nn.Linear(11, 4)


def parametrized(model):
    nn.utils.parametrizations.weight_norm(model[3])


def pruned(model):
    nn.utils.prune.random_unstructured(model[3], "weight", 0.5)


@pytest.mark.parametrize(
    ("breaks", "message"),
    [
        (nan_weight, r"'3.weight' holds 1 NaN and 0 infinite of 48 values, .* \(1, 2\)"),
        (meta, "'3.weight' is on the meta device"),
        (integer, "'3.weight' has dtype torch.int64"),
        (gone, "no parameter '3.weight'"),
        (other_shape, r"'3.weight' has shape \(4, 11\), its mask has \(4, 12\)"),
        (parametrized, "'3.weight' is computed by torch.nn.utils.parametrize"),
        (pruned, "'3.weight' is reparametrised by torch.nn.utils.prune"),
    ],
)
def test_a_model_that_does_not_fit_is_refused_and_untouched(breaks, message):
    model = net()
    masks = half(model)
    breaks(model)
    first = model[0].weight.detach().clone()
    for call in (masks.validate, masks.apply, masks.to_prune, masks.make_permanent):
        if breaks is pruned and call == masks.make_permanent:
            continue  # the one call that is for such models
        with pytest.raises(MaskError, match=message):
            call(model)
        assert torch.equal(model[0].weight, first)
        assert not hasattr(model[0], "weight_orig")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"3.weight": torch.ones(12, 4)}, r"shape \(12, 4\), the parameter \(4, 12\)"),
        ({"3.weight": torch.full((4, 12), float("inf"))}, "48 infinite"),
        ({"3.weight": torch.full((4, 12), 1e6)}, "as torch.float16, 0 NaN and 48 infinite"),
        ({"3.weight": torch.ones(4, 12, dtype=torch.int32)}, "not torch.int32 on cpu"),
        ({"3.weight": torch.ones(4, 12, device="meta")}, "on meta"),
        ({"3.bias": torch.ones(4)}, "value for '3.bias', but no mask"),
    ],
)
def test_values_that_do_not_fit_are_refused_and_nothing_is_written(values, message):
    model = net().half()
    before = bits(model)
    with pytest.raises(MaskError, match=message):
        half(model).apply(model, values)
    assert bits(model) == before


def test_a_write_that_fails_is_rolled_back():
    model = net()
    # Validation cannot see that torch refuses in-place writes to expanded memory.
    model[3].weight = nn.Parameter(torch.ones(1, 1).expand(4, 12))
    masks = half(model)
    before = bits(model)
    with pytest.raises(RuntimeError):
        masks.apply(model)
    assert bits(model) == before


def test_a_handle_reverts_once_and_only_what_fits():
    model = net()
    handle = half(model).apply(model)
    model.double()
    masked = bits(model)
    with pytest.raises(MaskError, match=r"'0.weight' was .*32 when masked and is .*64 now"):
        handle.revert()
    assert bits(model) == masked
    model.float()
    handle.revert()
    with pytest.raises(MaskError, match="reverted or made permanent"):
        handle.revert()
    with pytest.raises(MaskError, match="reverted or made permanent"):
        handle.original("0.weight")


def test_permanent_form_forgets_the_dense_weights():
    model = net()
    masks = half(model)
    handle = masks.apply(model)
    handle.make_permanent()
    with pytest.raises(MaskError, match="made permanent"):
        handle.revert()
    assert MaskSet.from_model(model) == masks
    other = net()
    masks.make_permanent(other)
    assert bits(other) == bits(model)


def test_frozen_parameters_and_autograd():
    model = net()
    model[3].weight.requires_grad_(False)
    half(model).apply(model)
    assert not model[3].weight.requires_grad
    assert model[0].weight.requires_grad
    assert model[0].weight.is_leaf
    model(torch.ones(1, 2, 4, 4)).sum().backward()
    assert model[0].weight.grad is not None


def test_originals_option_is_checked():
    model = net()
    with pytest.raises(MaskError, match="'device' or 'cpu', got 'disk'"):
        half(model).apply(model, originals="disk")  # type: ignore[arg-type]
