"""Everything that a run needs, found and checked before the first weight is touched."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .callables import CallableLoader, absolute_reference, check_solver
from .errors import InputError
from .returned import as_iterable, as_module, as_numbers
from .run_config import RunConfig

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
    _factory: Callable[[], Any]
    _calibration: Callable[[], Any]
    _holdout: Callable[[], Any] | None
    _evaluate: Callable[[Any], Any] | None

    @classmethod
    def find(cls, run: RunConfig, folder: Path) -> RunInputs:
        """Look up what ``run`` names; relative paths start at ``folder``.

        Raises
        ------
        InputError, SolverError
            A file or function is missing, or the solver or one of its options does not exist.
        """
        check_solver(run)
        run = _absolute(run, folder)
        if run.model.weights is not None and not Path(run.model.weights).is_file():
            raise InputError(f"model.weights: there is no file {run.model.weights}")
        loader = CallableLoader(folder)
        data = run.data
        return cls(
            run=run,
            _factory=loader.load("model.factory", run.model.factory, 0),
            _calibration=loader.load("data.calibration", data.calibration, 0),
            _holdout=None if data.holdout is None else loader.load("data.holdout", data.holdout, 0),
            _evaluate=(
                None if data.evaluate is None else loader.load("data.evaluate", data.evaluate, 1)
            ),
        )

    def model(self) -> nn.Module:
        """The trained model. Raises `InputError` if it is no module or the weights do not fit."""
        from safetensors import SafetensorError
        from safetensors.torch import load_model

        model = as_module("model.factory", self.run.model.factory, self._factory())
        if self.run.model.weights is not None:
            try:
                load_model(model, self.run.model.weights)
            except (SafetensorError, RuntimeError) as e:
                raise InputError(f"model.weights = {self.run.model.weights}: {e}") from None
        return model

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
    weights = run.model.weights
    model = run.model.model_copy(
        update={
            "factory": absolute_reference(folder, run.model.factory),
            "weights": None if weights is None else str((folder / weights).resolve()),
        }
    )
    out = run.output.model_copy(update={"dir": str((folder / run.output.dir).resolve())})
    return run.model_copy(update={"model": model, "data": data, "output": out})
