"""Everything that a run needs, found and checked before the first weight is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .callables import CallableLoader, absolute_reference, check_solver
from .model_inputs import ModelInputs, absolute_model
from .returned import as_iterable, as_numbers
from .run_config import RunConfig
from .run_tracking import check_trackers

if TYPE_CHECKING:
    from torch import nn

__all__ = ["RunInputs"]


@dataclass(frozen=True, slots=True)
class RunInputs:
    """The functions and files that a `RunConfig` names.

    Attributes
    ----------
    run : the config, with absolute paths
    """

    run: RunConfig
    _model: ModelInputs
    _calibration: Callable[[], Any]
    _holdout: Callable[[], Any] | None
    _evaluate: Callable[[Any], Any] | None

    @classmethod
    def find(cls, run: RunConfig, folder: Path) -> RunInputs:
        """Look up what ``run`` names; relative paths start at ``folder``.

        Raises
        ------
        InputError, SolverError, TrackingError
            A file or function is missing, the solver or one of its options does not exist, or a
            tracker is not installed.
        """
        check_solver(run)
        check_trackers(run)
        run = _absolute(run, folder)
        loader = CallableLoader(folder)
        data = run.data
        return cls(
            run=run,
            _model=ModelInputs.find(run.model, loader),
            _calibration=loader.load("data.calibration", data.calibration, 0),
            _holdout=None if data.holdout is None else loader.load("data.holdout", data.holdout, 0),
            _evaluate=(
                None if data.evaluate is None else loader.load("data.evaluate", data.evaluate, 1)
            ),
        )

    def model(self, weights: str | None = None) -> nn.Module:
        """The trained model. Raises `InputError` if it is no module or the weights do not fit.

        ``weights``: a safetensors file to load in place of the run's ``model.weights``
        """
        return self._model.make(weights)

    def calibration(self) -> Iterable[Any]:
        """The calibration batches. Raises `InputError` if the function returns no iterable."""
        return as_iterable("data.calibration", self._calibration())

    def holdout(self) -> Iterable[Any] | None:
        """The batches that judge steps, or None. Raises `InputError` as `calibration`."""
        return None if self._holdout is None else as_iterable("data.holdout", self._holdout())

    def evaluate(self, model: nn.Module) -> dict[str, float] | None:
        """The user's numbers for a model, or None. Raises `InputError` for anything else."""
        if self._evaluate is None:
            return None
        return as_numbers("data.evaluate", self._evaluate(model))


def _absolute(run: RunConfig, folder: Path) -> RunConfig:
    """Paths made absolute, so that the config written beside the results can be run again."""

    data = run.data.model_copy(
        update={
            k: absolute_reference(folder, getattr(run.data, k)) for k in type(run.data).model_fields
        }
    )
    out = run.output.model_copy(update={"dir": str((folder / run.output.dir).resolve())})
    return run.model_copy(
        update={"model": absolute_model(run.model, folder), "data": data, "output": out}
    )
