"""Operations on each element by itself: activations, sums and products with broadcasting."""

from __future__ import annotations

from typing import Any

from optiprune.structure.context import Context
from optiprune.structure.factors import Labels

from .registry import rule

__all__ = ["ELEMENTWISE"]


ELEMENTWISE = (
    "abs",
    "alias",
    "bernoulli",
    "celu",
    "clamp",
    "clamp_max",
    "clamp_min",
    "clone",
    "contiguous",
    "cos",
    "detach",
    "dropout",
    "elu",
    "eq",
    "erf",
    "exp",
    "feature_dropout",
    "ge",
    "gelu",
    "gt",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "isinf",
    "isnan",
    "le",
    "leaky_relu",
    "lift_fresh_copy",
    "log",
    "log1p",
    "log_sigmoid",
    "logical_not",
    "lt",
    "masked_fill",
    "mish",
    "nan_to_num",
    "ne",
    "neg",
    "reciprocal",
    "relu",
    "relu6",
    "round",
    "rsqrt",
    "selu",
    "sigmoid",
    "sign",
    "silu",
    "sin",
    "softplus",
    "softsign",
    "sqrt",
    "square",
    "tanh",
    "threshold",
    "to",
    "_to_copy",
    "type_as",
    "add",
    "addcmul",
    "addcdiv",
    "atan2",
    "bitwise_and",
    "bitwise_or",
    "div",
    "fmod",
    "lerp",
    "logical_and",
    "logical_or",
    "maximum",
    "minimum",
    "mul",
    "pow",
    "remainder",
    "rsub",
    "sub",
    "where",
    "native_dropout",
    "acos",
    "asin",
    "asinh",
    "atan",
    "acosh",
    "atanh",
    "bitwise_not",
    "bitwise_xor",
    "ceil",
    "copysign",
    "cosh",
    "digamma",
    "empty_like",
    "erfc",
    "erfinv",
    "exp2",
    "expm1",
    "fill",
    "floor",
    "floor_divide",
    "frac",
    "full_like",
    "hardshrink",
    "hypot",
    "isfinite",
    "isneginf",
    "isposinf",
    "lgamma",
    "log10",
    "log2",
    "logaddexp",
    "logical_xor",
    "logit",
    "ones_like",
    "rand_like",
    "randn_like",
    "rrelu",
    "sgn",
    "signbit",
    "sinh",
    "softshrink",
    "special_expit",
    "tan",
    "trunc",
    "xlogy",
    "zeros_like",
)


@rule(*ELEMENTWISE)
def elementwise(context: Context, *args: Any, **kwargs: Any) -> Labels:
    tensors = [x for x in (*args, *kwargs.values()) if isinstance(x, Labels)]
    return context.meet(tensors, "it meets a tensor whose size is fixed there")


@rule("prelu", "_prelu_kernel")
def prelu(context: Context, x: Labels, weight: Labels) -> Labels:
    if weight.ndim == 1 and weight.shape[0] > 1:  # one slope for each channel
        weight = weight.followed_by(x.ndim - 2)
    elif weight.ndim == 1:
        weight = Labels((1,) * x.ndim)
    return context.meet([x, weight], "it meets a tensor whose size is fixed there")
