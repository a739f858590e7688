"""A transposed convolution computes what nn.Upsample computes, up to the borders."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from optiprune.structure import FormError, transposed_upsample
from optiprune.structure.forms.upsampling import ByChannels, factors_of

LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}
EXACT = {torch.float64: 1e-12, torch.float32: 1e-6}


def off(a: Tensor, b: Tensor) -> float:
    assert a.shape == b.shape
    assert a.dtype == b.dtype
    return float((a - b).abs().max() / b.abs().max())


@pytest.mark.parametrize("dtype", list(EXACT))
@pytest.mark.parametrize("size", [(1, 1), (1, 4), (3, 1), (2, 2), (5, 8)])
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
@pytest.mark.parametrize("factor", [1, 2, 3, 4, 5])
def test_equal_borders_included(
    factor: int, mode: str, size: tuple[int, int], dtype: torch.dtype
) -> None:
    up = nn.Upsample(scale_factor=factor, mode=mode)
    form = transposed_upsample(up, 3, dtype=dtype)
    x = torch.randn(2, 3, *size, dtype=dtype)
    assert off(form(x), up(x)) < EXACT[dtype]
    if mode != "bilinear":
        assert torch.equal(form(x), up(x))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data(), st.integers(1, 3), st.booleans())
def test_equal_with_a_factor_for_each_dimension(data, dims: int, nearest: bool) -> None:
    torch.manual_seed(dims)
    factors = tuple(data.draw(st.integers(1, 5)) for _ in range(dims))
    size = tuple(data.draw(st.integers(1, 6)) for _ in range(dims))
    channels = data.draw(st.integers(1, 3))
    up = nn.Upsample(scale_factor=factors, mode="nearest" if nearest else LINEAR[dims])
    form = transposed_upsample(up, channels, dims, dtype=torch.float64)
    x = torch.randn(2, channels, *size, dtype=torch.float64)
    assert off(form(x), up(x)) < 1e-12


@pytest.mark.parametrize("factor", [6, 7, 8, 9, 16, 31, 32, 41])
def test_large_factors(factor: int) -> None:
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64)
    for mode in ("bilinear", "nearest-exact", *(["nearest"] if factor < 41 else [])):
        up = nn.Upsample(scale_factor=factor, mode=mode)
        assert off(transposed_upsample(up, 2, dtype=x.dtype)(x), up(x)) < 1e-12


@pytest.mark.parametrize("size", [256, 512])
def test_at_large_sizes_in_float32_this_form_is_the_more_exact_one(size: int) -> None:
    up = nn.Upsample(scale_factor=3, mode="bilinear")
    x = torch.randn(1, 8, 4, size)
    truth = up(x.double())
    form, torchs = off(transposed_upsample(up, 8)(x).double(), truth), off(up(x).double(), truth)
    assert form < 1e-6 < 1e-5 < torchs < 1e-4


def test_kernels_known_by_hand() -> None:
    def kernel(factor: int, mode: str = "linear") -> Tensor:
        up = nn.Upsample(scale_factor=factor, mode=mode)
        return transposed_upsample(up, 1, 1, dtype=torch.float64)[-1].weight.flatten()

    assert kernel(2).tolist() == [0.25, 0.75, 0.75, 0.25]
    torch.testing.assert_close(kernel(3) * 3, torch.tensor([1.0, 2, 3, 2, 1], dtype=torch.float64))
    assert kernel(4).tolist() == [x / 8 for x in (1, 3, 5, 7, 7, 5, 3, 1)]
    assert kernel(3, "nearest").tolist() == [1, 1, 1]
    both = nn.Upsample(scale_factor=(2, 1), mode="bilinear")
    pad, conv = transposed_upsample(both, 2)
    assert pad.padding == (0, 0, 1, 1)
    assert conv.weight.shape == (2, 1, 4, 1)
    assert (conv.stride, conv.padding, conv.groups) == ((2, 1), (3, 0), 2)


def test_the_ways_in_which_torch_says_the_same() -> None:
    x = torch.randn(1, 2, 3, 3)
    for up in (
        nn.UpsamplingNearest2d(scale_factor=2),
        nn.Upsample(scale_factor=3.0, mode="bilinear", align_corners=False),
        nn.Upsample(scale_factor=3.0, mode="bilinear", recompute_scale_factor=True),
    ):
        assert off(transposed_upsample(up, 2)(x), up(x)) < 1e-6


@pytest.mark.parametrize(
    ("up", "message"),
    [
        (nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), "align_corners=True"),
        (nn.UpsamplingBilinear2d(scale_factor=2), "align_corners=True"),
        (nn.Upsample(scale_factor=1.5), "scale_factor=1.5 is no whole number"),
        (nn.Upsample(scale_factor=(2, 0.5)), r"scale_factor=\(2.0, 0.5\) is no whole number"),
        (nn.Upsample(scale_factor=-1), "is no whole number"),
        (nn.Upsample(scale_factor=(2, 2, 2)), "on 2 dimensions"),
        (nn.Upsample(size=8), "size=8: the factor then depends"),
        (nn.Upsample(scale_factor=2, mode="bicubic"), "mode 'bicubic' on 2 dimensions"),
        (nn.Upsample(scale_factor=2, mode="linear"), "mode 'linear' on 2 dimensions"),
        (nn.Upsample(scale_factor=41), "by 41: torch rounds 1 / 41"),
    ],
)
def test_refused(up: nn.Upsample, message: str) -> None:
    with pytest.raises(FormError, match=message):
        transposed_upsample(up, 3)


def test_nearest_is_refused_at_those_factors_at_which_torch_takes_another_input() -> None:
    for factor in range(1, 130):
        up = nn.Upsample(scale_factor=factor)
        x = torch.arange(40.0).reshape(1, 1, 40)
        whole = torch.equal(up(x), x.repeat_interleave(factor, 2))
        try:
            factors_of(up, 1)
        except FormError:
            assert not whole, factor
        else:
            assert whole, factor


def test_other_classes_hooks_and_integers_are_refused() -> None:
    class Mine(nn.Upsample):
        pass

    with pytest.raises(FormError, match="Mine is not one of"):
        transposed_upsample(Mine(scale_factor=2), 3)
    with pytest.raises(FormError, match=r"torch.uint8 cannot be convolved"):
        transposed_upsample(nn.Upsample(scale_factor=2), 3, dtype=torch.uint8)
    hooked = nn.Upsample(scale_factor=2)
    hooked.register_forward_pre_hook(lambda module, args: None)
    with pytest.raises(FormError, match="hooks"):
        transposed_upsample(hooked, 3)


def test_the_kernel_is_not_trained_and_is_saved_and_copied() -> None:
    before = torch.get_rng_state()
    form = transposed_upsample(nn.Upsample(scale_factor=3, mode="bilinear").eval(), 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert not form.training
    assert not any(p.requires_grad for p in form.parameters())
    state = form.state_dict()
    assert list(state) == ["1.weight"]
    again = copy.deepcopy(form)
    assert not any(p.requires_grad for p in again.parameters())
    again[1].weight.zero_()
    again.load_state_dict(state)
    x = torch.randn(1, 2, 3, 5, requires_grad=True)
    assert torch.equal(again(x), form(x))
    # gradients go through it to what is before it
    again(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.full_like(x, 9.0))
    assert form.to(torch.float64)(x.double()).dtype is torch.float64
    exported = torch.export.export(form.float(), (x.detach(),)).module()
    assert torch.equal(exported(x.detach()), form(x.detach()))


def test_one_upsampling_for_several_numbers_of_channels() -> None:
    up = nn.Upsample(scale_factor=2, mode="bilinear")
    form = ByChannels({c: transposed_upsample(up, c) for c in (2, 5)})
    for channels in (2, 5):
        x = torch.randn(1, channels, 3, 4)
        assert off(form(input=x), up(x)) < 1e-6
        assert torch.equal(torch.export.export(form, (x,)).module()(x), form(x))
    with pytest.raises(ValueError, match=r"an input of 3 channels; .* made for 2, 5"):
        form(torch.randn(1, 3, 4, 4))


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_onnx_has_no_resize_and_the_same_numbers(mode: str, tmp_path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    form = transposed_upsample(nn.Upsample(scale_factor=(2, 3), mode=mode), 3).eval()
    x = torch.randn(1, 3, 4, 5)
    path = tmp_path / "form.onnx"
    torch.onnx.export(form, (x,), path, dynamo=True, verbose=False)
    operations = {node.op_type for node in onnx.load(path).graph.node}
    assert "ConvTranspose" in operations
    assert not operations & {"Resize", "Upsample"}
    session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (got,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert off(torch.from_numpy(got), form(x)) < 1e-6
