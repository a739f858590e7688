"""What is lost against what is left, over a sweep of budgets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import nn

from .errors import ShrinkingError
from .result import StructureResult

__all__ = ["plot_sweep"]

_LABELS = {
    "macs": "multiply-adds left (%)",
    "parameters": "parameters left (%)",
    "memory": "memory left (%)",
    "latency": "latency left, as predicted (%)",
}


def plot_sweep(
    results: Sequence[StructureResult],
    path: str | Path,
    *,
    cost: str = "macs",
    score: Callable[[nn.Module], float] | None = None,
    score_name: str = "accuracy",
    score_before: float | None = None,
) -> None:
    """Draw results of `sweep_structure` (needs matplotlib).

    Parameters
    ----------
    path : of the figure; its ending says the format
    cost : key of `StructureResult.before` for the axis across
    score : of a model, for the axis up; without one it is the loss on the calibration data
    score_name, score_before : its name, and its value for the model that was given

    Raises
    ------
    ShrinkingError
        No result, or a cost that was not measured.
    """
    if not results or cost not in results[0].before:
        raise ShrinkingError(
            f"nothing to draw over {cost!r}: {len(results)} results"
            + (f" with {', '.join(results[0].before)}" if results else "")
        )
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    left = [100 * r.after[cost] / r.before[cost] for r in results]
    up = [r.loss_after if score is None else score(r.model) for r in results]
    dense = results[0].loss_before if score is None else score_before
    order = sorted(range(len(left)), key=left.__getitem__)
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    axes.plot([left[i] for i in order], [up[i] for i in order], "o-", label="smaller models")
    if dense is not None:
        axes.axhline(dense, color="0.5", linestyle="--", linewidth=1, label="as given")
    axes.set_xlabel(_LABELS.get(cost, cost))
    axes.set_ylabel("loss on the calibration data" if score is None else score_name)
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
