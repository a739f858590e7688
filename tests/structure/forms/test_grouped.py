"""A dense kernel computes what the grouped convolution computes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from optiprune.structure import FormError, dense_kernel, dense_of_groups

PLAIN = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TRANSPOSED = {1: nn.ConvTranspose1d, 2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
EXACT = {torch.float64: 1e-12, torch.float32: 1e-6}


def off(a: Tensor, b: Tensor) -> float:
    """Largest difference over the largest magnitude."""
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return float((a - b).abs().max() / b.abs().max())


@st.composite
def convolutions(draw: st.DrawFn) -> tuple[nn.Module, tuple[int, ...]]:
    torch.manual_seed(draw(st.integers(0, 9)))
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 2, 3, 5]))
    transposed = draw(st.booleans())
    each = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(dims))
    options = {
        "kernel_size": each(1, 3),
        "stride": each(1, 3),
        "dilation": each(1, 2),
        "bias": draw(st.booleans()),
        "groups": groups,
        "dtype": draw(st.sampled_from(list(EXACT))),
    }
    if transposed:
        options["padding"] = each(0, 1)
        # torch asks that it is below the stride or the dilation
        options["output_padding"] = tuple(
            draw(st.integers(0, max(s, d) - 1))
            for s, d in zip(options["stride"], options["dilation"], strict=True)
        )
    else:
        options["padding_mode"] = draw(st.sampled_from(["zeros", "reflect", "circular"]))
        options["padding"] = each(0, 2)
        if draw(st.booleans()):
            options |= {"padding": "same", "stride": (1,) * dims}
        if options["padding_mode"] == "reflect" and dims == 3:
            options["padding_mode"] = "replicate"
    kind = (TRANSPOSED if transposed else PLAIN)[dims]
    conv = kind(groups * draw(st.integers(1, 3)), groups * draw(st.integers(1, 3)), **options)
    return conv, each(7, 9)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(convolutions())
def test_equal_for_every_kind_of_convolution(case: tuple[nn.Module, tuple[int, ...]]) -> None:
    conv, size = case
    dense = dense_kernel(conv)
    assert type(dense) is type(conv)
    assert dense.groups == 1
    for name in ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation"):
        assert getattr(dense, name) == getattr(conv, name)
    assert (dense.padding_mode, dense.output_padding) == (conv.padding_mode, conv.output_padding)
    x = torch.randn(2, conv.in_channels, *size, dtype=conv.weight.dtype)
    with torch.no_grad():
        assert off(dense(x), conv(x)) < EXACT[x.dtype]


def test_where_each_number_goes() -> None:
    conv = nn.Conv1d(4, 2, 1, groups=2, bias=False)
    conv.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None]
    dense = dense_kernel(conv)
    assert dense.weight[..., 0].tolist() == [[1, 2, 0, 0], [0, 0, 3, 4]]
    turned = nn.ConvTranspose1d(2, 4, 1, groups=2, bias=False)
    turned.weight.data = torch.tensor([[1.0, 2.0], [3.0, 4.0]])[..., None]
    assert dense_kernel(turned).weight[..., 0].tolist() == [[1, 2, 0, 0], [0, 0, 3, 4]]


def test_depthwise_with_several_outputs_a_channel() -> None:
    conv = nn.Conv2d(5, 15, 3, padding=1, groups=5, dtype=torch.float64)
    x = torch.randn(1, 5, 6, 4, dtype=torch.float64)
    with torch.no_grad():
        assert off(dense_kernel(conv)(x), conv(x)) < 1e-12


def test_what_belongs_to_the_module_is_kept_and_nothing_is_shared() -> None:
    conv = nn.Conv2d(4, 4, 3, groups=2, dtype=torch.bfloat16).eval()
    conv.weight.requires_grad_(False)
    conv = conv.to(memory_format=torch.channels_last)
    before = torch.get_rng_state()
    dense = dense_kernel(conv)
    assert torch.equal(torch.get_rng_state(), before)
    assert dense.weight.dtype is torch.bfloat16
    assert dense.weight.is_contiguous(memory_format=torch.channels_last)
    assert not dense.weight.requires_grad
    assert dense.bias.requires_grad
    assert not dense.training
    dense.bias.data.zero_()
    assert conv.bias.abs().max() > 0
    on_meta = dense_kernel(nn.Conv1d(4, 4, 3, groups=2, device="meta"))
    assert on_meta.weight.device.type == "meta"


def uneven(conv: nn.Module, outputs: list[list[int]], inputs: list[list[int]]) -> nn.Module:
    """What is left of a grouped convolution, channels counted in each group."""
    rows, columns = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    transposed = isinstance(conv, nn.ConvTranspose2d)
    parts = [
        w[c][:, r] if transposed else w[r][:, c]
        for w, r, c in zip(conv.weight.chunk(conv.groups), outputs, inputs, strict=True)
    ]
    kept = [rows * g + r for g, group in enumerate(outputs) for r in group]
    read = [columns * g + c for g, group in enumerate(inputs) for c in group]
    return dense_of_groups(
        [[kept.index(rows * g + r) for r in group] for g, group in enumerate(outputs)],
        [[read.index(columns * g + c) for c in group] for g, group in enumerate(inputs)],
        parts,
        conv.bias[kept],
        in_channels=len(read),
        transposed=transposed,
        stride=conv.stride,
        padding=conv.padding,
    )


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_groups_of_different_sizes_as_pruning_leaves_them(kind: type[nn.Module]) -> None:
    conv = kind(9, 12, 3, stride=2, padding=1, groups=3, dtype=torch.float64)
    outputs, inputs = [[0, 3], [1], [0, 1, 2, 3]], [[2], [], [0, 1, 2]]
    small = uneven(conv, outputs, inputs)
    read, kept = [2, 6, 7, 8], [0, 3, 5, 8, 9, 10, 11]
    x = torch.randn(2, 9, 7, 5, dtype=torch.float64)
    masked = torch.zeros_like(x)
    masked[:, read] = x[:, read]
    with torch.no_grad():
        want = conv(masked)[:, kept]
        assert off(small(x[:, read]), want) < 1e-12
        # a group that reads nothing is its bias
        assert torch.equal(want[:, 2], conv.bias[5].expand_as(want[:, 2]))


def test_channels_may_be_interleaved_read_twice_or_not_at_all() -> None:
    weights = [torch.ones(2, 2, 1), torch.full((1, 1, 1), 5.0)]
    dense = dense_of_groups([[2, 0], [1]], [[3, 0], [3]], weights, in_channels=5)
    assert dense.weight[..., 0].tolist() == [[1, 0, 0, 1, 0], [0, 0, 0, 5, 0], [1, 0, 0, 1, 0]]
    assert dense.bias is None
    assert dense_of_groups([[0], [1]], [[0], [0]], [torch.ones(1, 1, 1)] * 2).in_channels == 1


def one(o: int = 1, i: int = 1) -> Tensor:
    return torch.ones(o, i, 1)


@pytest.mark.parametrize(
    ("outputs", "inputs", "weights", "more", "message"),
    [
        ([], [], [], {}, "0 groups of outputs"),
        ([[0]], [[0], [1]], [one()], {}, "1 groups of outputs, 2 of inputs and 1 weights"),
        ([[0], [2]], [[0], [1]], [one(), one()], {}, r"write channels \[0, 2\], not each"),
        ([[0], [0]], [[0], [1]], [one(), one()], {}, r"write channels \[0, 0\], not each"),
        ([[0]], [[1, 1]], [one(1, 2)], {}, r"inputs of group 0 .*\[1, 1\]"),
        ([[0]], [[-1]], [one()], {}, r"inputs of group 0 .*\[-1\]"),
        ([[0]], [[3]], [one()], {"in_channels": 3}, "in_channels is 3, but .* up to 3"),
        ([[0]], [[0]], [torch.ones(1, 1)], {}, r"has shape \(1, 1\): 3 to 5"),
        ([[0], [1]], [[0], [1]], [one(), one(2)], {}, "weight of group 1 is .*2, 1, 1"),
        ([[0]], [[0]], [one()], {"bias": torch.ones(2)}, r"bias has shape \(2,\), not \(1,\)"),
        ([[0], [1]], [[0], [1]], [one(), one().double()], {}, "group 1 is .*float64"),
    ],
)
def test_groups_that_do_not_fit(outputs, inputs, weights, more, message) -> None:
    with pytest.raises(FormError, match=message):
        dense_of_groups(outputs, inputs, weights, **more)


class Standardised(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:  # noqa: A002
        return super().forward(input) * 2


def test_modules_that_do_more_than_a_convolution_are_refused() -> None:
    with pytest.raises(FormError, match="Standardised is not one of Conv1d, Conv2d"):
        dense_kernel(Standardised(2, 2, 1, groups=2))
    with pytest.raises(FormError, match="ParametrizedConv2d is not one of"):
        dense_kernel(nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 1, groups=2)))
    hooked = nn.Conv2d(2, 2, 1, groups=2)
    hooked.register_forward_hook(lambda module, args, out: out + 1)
    with pytest.raises(FormError, match="hooks"):
        dense_kernel(hooked)
