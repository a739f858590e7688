"""A grouped convolution as one dense kernel: zeros, filled group by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from .candidates import FormError, require_plain

__all__ = ["dense_kernel", "dense_of_groups"]

Size = int | tuple[int, ...]
C = TypeVar("C", bound=_ConvNd)

# by the number of spatial dimensions
_PLAIN: dict[int, type[_ConvNd]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
_TRANSPOSED: dict[int, type[_ConvNd]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}
_LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}


def dense_kernel(conv: C) -> C:
    """The convolution of one group that computes what a grouped one computes.

    Its weight holds zeros between channels of different groups, so it multiplies as often as the
    grouped one times ``groups``, and may be faster all the same: many libraries run small groups
    one after the other. Outputs are equal but for the order of the sums, on finite inputs: an
    infinite one times a zero is no number, in all output channels. Training would move the zeros.

    Parameters
    ----------
    conv : ``nn.Conv{1,2,3}d`` or ``nn.ConvTranspose{1,2,3}d``, weight (O, I / groups, *kernel), or
        (I, O / groups, *kernel) of a transposed one; depthwise ones too; left as it is

    Returns
    -------
    Of the same class, weight (O, I, *kernel) or (I, O, *kernel), ``groups=1``; stride, padding,
    dilation, padding_mode, output_padding, bias, dtype, device, mode and ``requires_grad`` are the
    given one's, its tensors are copies.

    Raises
    ------
    FormError
        It is of another class (a subclass, a parametrized one), or has hooks.
    """
    require_plain(conv, [*_PLAIN.values(), *_TRANSPOSED.values()])
    transposed = isinstance(conv, _ConvTransposeNd)
    out = dense_of_groups(
        torch.arange(conv.out_channels).chunk(conv.groups),
        torch.arange(conv.in_channels).chunk(conv.groups),
        conv.weight.chunk(conv.groups),
        conv.bias,
        in_channels=conv.in_channels,
        transposed=transposed,
        stride=conv.stride,
        padding=conv.padding,
        output_padding=conv.output_padding,
        dilation=conv.dilation,
        padding_mode=conv.padding_mode,
    )
    layout = _LAYOUTS.get(conv.weight.ndim)
    if layout is not None and _is_laid_out(conv.weight, layout):
        out.weight.data = out.weight.data.contiguous(memory_format=layout)
    out.weight.requires_grad_(conv.weight.requires_grad)
    if out.bias is not None and conv.bias is not None:
        out.bias.requires_grad_(conv.bias.requires_grad)
    return out.train(conv.training)  # type: ignore[return-value]


def dense_of_groups(
    outputs: Sequence[Sequence[int] | Tensor],
    inputs: Sequence[Sequence[int] | Tensor],
    weights: Sequence[Tensor],
    bias: Tensor | None = None,
    *,
    in_channels: int | None = None,
    transposed: bool = False,
    stride: Size = 1,
    padding: Size | str = 0,
    output_padding: Size = 0,
    dilation: Size = 1,
    padding_mode: str = "zeros",
) -> _ConvNd:
    """One dense convolution for groups of any sizes, as pruning leaves them.

    Parameters
    ----------
    outputs : per group, the channels that it writes; every output channel is in one group
    inputs : per group, the channels that it reads, without repetition; it may read none, its
        outputs are the bias then; groups may read the same channel, and a
        channel may be read by none
    weights : per group, of one dtype and device: (outputs of the group, inputs of the group,
        *kernel), of a transposed one (inputs of the group, outputs of the group, *kernel), in the
        order of its channels; one to three kernel dimensions, the same in all groups
    bias : (output channels,) of the whole, or None
    in_channels : of the whole; by default up to the last that is read
    transposed : make an ``nn.ConvTranspose{1,2,3}d``
    stride, padding, output_padding, dilation, padding_mode : as in torch; ``output_padding`` is of
        transposed ones alone, whose padding is a number and whose ``padding_mode`` is "zeros"

    Raises
    ------
    FormError
        The channels or shapes do not fit; the message names the group.
    """
    rows = [_channels(x, "outputs", g) for g, x in enumerate(outputs)]
    columns = [_channels(x, "inputs", g) for g, x in enumerate(inputs)]
    if not len(rows) == len(columns) == len(weights) or not rows:
        raise FormError(
            f"{len(rows)} groups of outputs, {len(columns)} of inputs and {len(weights)} weights: "
            "there must be as many of each, and one at least"
        )
    written = sorted(int(i) for r in rows for i in r)
    if written != list(range(len(written))) or not written:
        raise FormError(f"the groups write channels {written}, not each of 0, 1, ... once")
    read = max((int(c.max()) + 1 for c in columns if len(c)), default=0)
    width = read if in_channels is None else in_channels
    if width < read or width < 1:
        raise FormError(f"in_channels is {width}, but the groups read channels up to {read - 1}")
    first = weights[0]
    if not 3 <= first.ndim <= 5:
        raise FormError(f"the weight of group 0 has shape {tuple(first.shape)}: 3 to 5 dimensions")
    for g, (r, c, w) in enumerate(zip(rows, columns, weights, strict=True)):
        head = (len(c), len(r)) if transposed else (len(r), len(c))
        want = (*head, *first.shape[2:])
        if tuple(w.shape) != want or w.dtype != first.dtype or w.device != first.device:
            raise FormError(
                f"the weight of group {g} is {tuple(w.shape)}, {w.dtype} on {w.device}; its "
                f"channels and group 0 ask for {want}, {first.dtype} on {first.device}"
            )
    height = len(written)
    if bias is not None and tuple(bias.shape) != (height,):
        raise FormError(f"the bias has shape {tuple(bias.shape)}, not ({height},)")

    kinds = _TRANSPOSED if transposed else _PLAIN
    options: dict[str, Any] = {"stride": stride, "padding": padding, "dilation": dilation}
    if transposed:
        options["output_padding"] = output_padding
    kind: type[Any] = kinds[first.ndim - 2]
    # on the meta device: to initialise a weight would draw from the global random state
    out: _ConvNd = kind(
        width,
        height,
        tuple(first.shape[2:]),
        bias=bias is not None,
        padding_mode=padding_mode,
        device="meta",
        dtype=first.dtype,
        **options,
    )
    with torch.no_grad():
        dense = first.new_zeros(out.weight.shape)
        for r, c, w in zip(rows, columns, weights, strict=True):
            ahead, behind = (c, r) if transposed else (r, c)
            dense[ahead[:, None].to(w.device), behind[None].to(w.device)] = w.detach()
        out.weight = nn.Parameter(dense)
        if bias is not None:
            out.bias = nn.Parameter(bias.detach().to(dense, copy=True))
    return out


def _is_laid_out(weight: Tensor, layout: torch.memory_format) -> bool:
    """Not where its shape makes both layouts one."""
    return weight.is_contiguous(memory_format=layout) and not weight.is_contiguous()


def _channels(values: Sequence[int] | Tensor, what: str, group: int) -> Tensor:
    channels = torch.as_tensor(values, dtype=torch.int64)
    if channels.ndim != 1 or (channels < 0).any() or len(channels.unique()) < len(channels):
        raise FormError(f"{what} of group {group} are no list of channels: {channels.tolist()}")
    return channels
