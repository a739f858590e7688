"""How long and how fast to tune where the config leaves it to the model."""

from __future__ import annotations

from optiprune.config import TuneOptions

__all__ = ["planned"]

_MOST, _LEAST = 20, 2
# samples in a step, and steps in a pass
_BATCH, _STEPS = 32, 8
# A step of Adam moves all weights at once, and the layers behind one another add up what it does to
# the output: deep models take smaller steps. Measured: docs/presets.md.
_FASTEST, _BY_DEPTH = 1e-2, 0.1


def planned(options: TuneOptions, layers: int, samples: int, multiply_adds: float) -> TuneOptions:
    """The options with numbers in place of 'auto'.

    Parameters
    ----------
    layers : that take part
    samples : of the calibration data
    multiply_adds : of the layers in one forward pass over all samples; for epochs = 'auto' alone
    """
    epochs, rate = options.epochs, options.learning_rate
    if isinstance(epochs, str):
        within = options.work / max(1.0, multiply_adds)
        epochs = int(min(_MOST, max(_LEAST, within)))
    if isinstance(rate, str):
        rate = min(_FASTEST, _BY_DEPTH / max(1, layers))
    batch = options.batch
    if isinstance(batch, str):
        batch = min(_BATCH, max(1, samples // _STEPS))
    return options.model_copy(update={"epochs": epochs, "learning_rate": rate, "batch": batch})
