"""The model that a finished run left in its folder, with its masks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError
from .outputs import CONFIG, SUMMARY
from .run_config import RunConfig, load_run_config
from .run_inputs import RunInputs

if TYPE_CHECKING:
    from torch import nn

    from optiprune.masks import MaskSet

__all__ = ["FinishedRun"]


@dataclass(frozen=True, slots=True)
class FinishedRun:
    """A folder that `optiprune prune` wrote.

    Attributes
    ----------
    folder : of the results
    run : its config; relative paths in it start at the folder that it was run in
    weights : the state dict to load; None if the masks are to be put on the dense model
    """

    folder: Path
    run: RunConfig
    weights: Path | None
    _inputs: RunInputs

    @classmethod
    def find(cls, folder: Path, weights: Path | None, here: Path) -> FinishedRun:
        """Look at what is there; nothing is loaded.

        Parameters
        ----------
        weights : in place of the run's own
        here : where modules that the run names are looked for

        Raises
        ------
        InputError
            No such folder, no finished run in it, or a file is missing.
        """
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}; give that of an `optiprune prune` run")
        missing = [n for n in (CONFIG, SUMMARY) if not (folder / n).is_file()]
        if missing:
            unfinished = (folder / "unfinished" / CONFIG).is_file()
            hint = f"; `optiprune resume {folder}` ends the run there" if unfinished else ""
            raise InputError(
                f"{folder} holds no finished `optiprune prune` run: no {' and no '.join(missing)}"
                f"{hint}"
            )
        run = load_run_config(folder / CONFIG)
        if not (folder / run.output.masks).is_file():
            raise InputError(f"{folder} holds no masks: there is no {run.output.masks}")
        own = folder / run.output.model
        if weights is not None and not weights.is_file():
            raise InputError(f"--weights: there is no file {weights}")
        if weights is None and run.output.save_model:
            if not own.is_file():
                raise InputError(f"{folder} lacks the run's weights {run.output.model}")
            weights = own
        return cls(folder, run, weights, RunInputs.find(run, here))

    def holds(self, path: Path) -> bool:
        """Whether a file is one of the run's own results."""
        out = self.run.output
        names = (CONFIG, SUMMARY, out.masks, out.model, out.history)
        return path.resolve() in {(self.folder / n).resolve() for n in names}

    def load(self) -> tuple[nn.Module, MaskSet]:
        """The pruned model and its masks.

        Raises
        ------
        InputError
            The factory fails, or the weights are not this model's.
        MaskError
            The masks are damaged, or for another model.
        """
        from optiprune.masks import MaskSet

        path = self.folder / self.run.output.masks
        if self.weights is None:
            model = self._inputs.model()
            masks = MaskSet.load(path, model)
            masks.apply(model).make_permanent()
            return model, masks
        model = self._inputs.model(str(self.weights))
        masks = MaskSet.load(path)
        masks.validate(model)
        return model, masks

    def example(self, model: nn.Module, samples: int) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for the model: the first calibration samples, in the model's precision."""
        import torch
        from torch.utils._pytree import tree_map_only

        from optiprune.curvature.data import CalibrationSet
        from optiprune.curvature.inputs import arguments_of, device_of

        data = CalibrationSet.collect(self._inputs.calibration(), device_of(model))
        batch = next(data.batches(samples))
        wanted = next((p.dtype for p in model.parameters() if p.is_floating_point()), torch.float32)
        inputs = tree_map_only(
            torch.Tensor, lambda t: t.to(wanted) if t.is_floating_point() else t, batch.inputs
        )
        return arguments_of(inputs)
