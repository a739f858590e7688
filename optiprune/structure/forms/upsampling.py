"""Upsampling by whole numbers as a transposed convolution, for targets that cannot resize.

The kernel follows from the factor alone. A bilinear one is the outer product of triangles. With
factor s, output o lies at (o + 1/2) / s - 1/2 between the inputs, and input i counts there with
1 - |(o + 1/2) / s - 1/2 - i| where that is positive: a transposed convolution of stride s whose
kernel has 2 s - (s mod 2) taps 1 - |t - centre| / s. Interpolation repeats the edge beyond the
border, so one input is repeated on each side first, and what it adds is cropped: the padding of
the convolution is s + floor(s / 2), floor(s / 2) of it for where the kernel starts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .candidates import FormError, require_plain

__all__ = ["ByChannels", "factors_of", "transposed_upsample"]

_NEAREST = ("nearest", "nearest-exact")
_LINEAR = {"linear": 1, "bilinear": 2, "trilinear": 3}
_PADS: dict[int, type[nn.Module]] = {
    1: nn.ReplicationPad1d,
    2: nn.ReplicationPad2d,
    3: nn.ReplicationPad3d,
}
_TRANSPOSED: dict[int, type[nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


def transposed_upsample(
    upsample: nn.Upsample,
    channels: int,
    dims: int = 2,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str | None = None,
) -> nn.Sequential:
    """An ``nn.Upsample`` as padding by repetition and a depthwise transposed convolution.

    Equal to it for inputs of every size, borders included, up to rounding: at large sizes torch's
    own interpolation in float32 rounds the places between pixels where the factor is no power of
    two (3e-5 of the largest output at 512 pixels and factor 3); this form does not.

    Parameters
    ----------
    upsample : mode "nearest", "nearest-exact", "linear", "bilinear" or "trilinear", corners not
        aligned, by a factor that is a whole number in every dimension; left as it is
    channels : of the inputs (batch, channels, *sizes)
    dims : how many sizes there are, 1 to 3
    dtype : a floating point one, of the kernel and the inputs

    Returns
    -------
    ``nn.Sequential`` of torch's own modules; (batch, channels, *sizes) -> (batch, channels,
    *sizes times factors). Its kernel is a parameter that is not trained (``requires_grad`` is
    False): optimizers, state dicts and exporters treat it as any other.

    Raises
    ------
    FormError
        The module resizes in another way (the message says which), or has hooks.
    """
    factors = factors_of(upsample, dims)
    if not dtype.is_floating_point:
        raise FormError(f"inputs of {dtype} cannot be convolved")
    linear = upsample.mode in _LINEAR
    # along a factor of one nothing happens, and nothing is repeated
    edges = [1 if linear and s > 1 else 0 for s in factors]
    taps = [_triangle(s) if linear else torch.ones(s, dtype=torch.float64) for s in factors]
    start = [s // 2 if linear else 0 for s in factors]
    kernel = taps[0]
    for more in taps[1:]:
        kernel = kernel[..., None] * more
    kind: type[Any] = _TRANSPOSED[dims]
    # on the meta device: to initialise a weight would draw from the global random state
    conv = kind(
        channels,
        channels,
        tuple(kernel.shape),
        stride=factors,
        padding=tuple(p + e * s for p, e, s in zip(start, edges, factors, strict=True)),
        groups=channels,
        bias=False,
        device="meta",
    )
    kernels = kernel.expand(conv.weight.shape).to(device, dtype).contiguous()
    conv.weight = nn.Parameter(kernels, requires_grad=False)
    parts: list[nn.Module] = [conv]
    if any(edges):  # torch counts the sides of a padding from the last dimension on
        parts.insert(0, _PADS[dims](tuple(e for e in reversed(edges) for _ in range(2))))
    return nn.Sequential(*parts).train(upsample.training)


def factors_of(upsample: nn.Upsample, dims: int) -> tuple[int, ...]:
    """The whole factors of an upsampling of ``dims`` dimensions, or why it has no such form.

    Raises
    ------
    FormError
    """
    require_plain(upsample, [nn.Upsample, nn.UpsamplingNearest2d, nn.UpsamplingBilinear2d])
    mode = upsample.mode
    if mode not in _NEAREST and _LINEAR.get(mode) != dims:
        raise FormError(
            f"mode {mode!r} on {dims} dimensions: there is a form for nearest, nearest-exact, "
            "linear (one dimension), bilinear (two) and trilinear (three)"
        )
    if upsample.align_corners:
        raise FormError(
            "align_corners=True: the distance between outputs then depends on the size of the "
            "input, so that no one kernel is exact"
        )
    if upsample.scale_factor is None:
        raise FormError(
            f"size={upsample.size}: the factor then depends on the size of the input; give "
            "scale_factor instead"
        )
    given = upsample.scale_factor
    scales = given if isinstance(given, tuple) else (given,) * dims
    if len(scales) != dims:
        raise FormError(f"scale_factor={given} on {dims} dimensions")
    if any(not float(s).is_integer() or s < 1 for s in scales):
        raise FormError(f"scale_factor={given} is no whole number in every dimension")
    factors = tuple(int(s) for s in scales)
    for s in factors:
        # what torch multiplies by: for some factors, 41 the first, output s comes out below 1
        if mode == "nearest" and float(torch.tensor(1 / s) * torch.tensor(float(s))) < 1:
            raise FormError(
                f"mode 'nearest' by {s}: torch rounds 1 / {s} in float32 so that some outputs take "
                "the input before the nearest one; 'nearest-exact' does not"
            )
    return factors


def _triangle(factor: int) -> Tensor:
    taps = 2 * factor - factor % 2
    distance = (torch.arange(taps, dtype=torch.float64) - (taps - 1) / 2).abs()
    return 1 - distance / factor


class ByChannels(nn.Module):
    """One upsampling that is called on tensors of several widths: a kernel for each of them.

    Parameters
    ----------
    forms : number of channels -> what to run on inputs (batch, that many channels, *sizes)
    """

    def __init__(self, forms: Mapping[int, nn.Module]) -> None:
        super().__init__()
        self.forms = nn.ModuleDict({str(channels): form for channels, form in forms.items()})

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (the name that nn.Upsample has)
        channels = str(input.shape[1])
        if channels not in self.forms:
            raise ValueError(
                f"an input of {channels} channels; this upsampling was made for "
                f"{', '.join(self.forms)}"
            )
        out: Tensor = self.forms[channels](input)
        return out
