"""Operations that are understood and hold what reaches them, and why."""

from __future__ import annotations

from typing import Any

import numpy as np

from optiprune.structure.context import Context, Work
from optiprune.structure.factors import Labels

from .registry import rule

__all__: list[str] = []

_REASONS = {
    "lstm": "the state of a recurrent layer feeds itself, and its sizes are the module's own",
    "_weight_norm": "a removed row of the masked model has a norm of zero, by which it is divided",
}


@rule("lstm", "gru", "rnn_tanh", "rnn_relu", "_weight_norm", counted=True)
def barrier(context: Context, *args: Any, **kwargs: Any) -> Any:
    reason = _REASONS.get(context.operation, _REASONS["lstm"])
    pending = [*args, *kwargs.values()]
    matrices = 0
    while pending:
        x = pending.pop()
        if isinstance(x, Labels):
            context.hold(x, reason)
            matrices += int(np.prod(x.shape)) if x.ndim == 2 else 0
        elif isinstance(x, tuple | list):
            pending += x
    if context.operation != "_weight_norm" and args[0].ndim == 3:
        # every matrix at every step, if it is not a packed sequence
        steps = args[0].shape[0] * args[0].shape[1]
        context.relations.work.append(Work(context.because("").module, steps * matrices, ()))
    value = context.node.meta["val"]
    if isinstance(value, tuple | list):
        return tuple(Labels(tuple(v.shape)) for v in value)
    return Labels(context.shape())
