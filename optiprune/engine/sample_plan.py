"""How many samples a linearisation of the loss looks at."""

from __future__ import annotations

from optiprune.config import CurvatureOptions

__all__ = ["planned_samples"]

_LEAST = 64


def planned_samples(
    options: CurvatureOptions, samples: int, multiply_adds: float
) -> CurvatureOptions:
    """The options with `samples` and `gradient_samples` that exist and cost no more than `work`.

    Parameters
    ----------
    samples : of the calibration data
    multiply_adds : of the layers in one forward pass of one sample
    """
    fisher = min(options.samples, samples)
    gradient = max(fisher, min(options.gradient_samples or 0, samples))
    share = options.work / max(1.0, multiply_adds) / (fisher + gradient)
    if share < 1.0:
        fisher = max(min(_LEAST, fisher), round(share * fisher))
        gradient = max(min(_LEAST, gradient), round(share * gradient))
    return options.model_copy(update={"samples": fisher, "gradient_samples": gradient})
