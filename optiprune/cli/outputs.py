"""The files of a finished run: written so that none is ever half there under its own name."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optiprune import __version__
from optiprune.config.run_files import CONFIG, SUMMARY
from optiprune.durable import replacing

from .errors import InputError
from .json_values import plain
from .pretrained_config import PretrainedRunConfig
from .run_config import RunConfig
from .toml_text import toml_text

if TYPE_CHECKING:
    from torch import nn

    from optiprune.engine.result import RunReport
    from optiprune.masks import MaskSet

__all__ = ["CONFIG", "SUMMARY", "Outputs", "history_line", "summary_of"]


class Outputs:
    """The folder of a run's results.

    Parameters
    ----------
    folder : made by `begin` if it is missing
    force : whether results that lie there may be replaced

    Raises
    ------
    InputError
        A result of another run lies there and ``force`` is false; two outputs share a name; the
        folder is a file.
    """

    def __init__(self, run: RunConfig | PretrainedRunConfig, folder: Path, *, force: bool) -> None:
        self.folder = folder
        self._names = _names(run)
        names = [*self._names.values(), CONFIG, SUMMARY]
        double = sorted({n for n in names if names.count(n) > 1})
        if double:
            raise InputError(f"[output] gives the file name {double[0]!r} twice")
        if folder.exists() and not folder.is_dir():
            raise InputError(f"output folder {folder} is a file")
        there = [n for n in names if (folder / n).exists()]
        if there and not force:
            raise InputError(
                f"{folder} holds results already ({', '.join(there)}); choose another folder with "
                "--out, or replace them with --force"
            )
        self._old = there

    def begin(self) -> None:
        """Make the folder and remove the results that are to be replaced.

        Called when there is something to replace them with: a run that ends without a result must
        not take an earlier one along, and no file of that one may stay among the new.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        for name in self._old:
            (self.folder / name).unlink(missing_ok=True)

    def write_history(self, records: Iterable[Any]) -> None:
        self._write(self._names["history"], "".join(history_line(r) for r in records))

    def write_config(self, run: RunConfig | PretrainedRunConfig) -> None:
        self._write(CONFIG, toml_text(run.model_dump(mode="json")))

    def write_summary(self, summary: Mapping[str, Any]) -> None:
        self._write(SUMMARY, json.dumps(plain(summary), indent=1, allow_nan=False) + "\n")

    def write_masks(self, masks: MaskSet, **how: Any) -> None:
        masks.save(self.folder / self._names["masks"], **how)

    def write_model(self, model: nn.Module) -> None:
        """The state dict with zeros where weights are pruned; nothing if it was not asked for."""
        if "model" not in self._names:
            return
        from safetensors.torch import save_model

        with replacing(self.folder / self._names["model"]) as part:
            save_model(model, str(part))  # knows tied weights

    def _write(self, name: str, text: str) -> None:
        with replacing(self.folder / name) as part:
            part.write_text(text, encoding="utf-8")


def _names(run: RunConfig | PretrainedRunConfig) -> dict[str, str]:
    """File names by what they hold; a model directory brings its own beside them."""
    if isinstance(run, PretrainedRunConfig):
        return {"history": "history.jsonl"}
    out = run.output
    names = {"masks": out.masks, "history": out.history}
    return {**names, "model": out.model} if out.save_model else names


def summary_of(
    report: RunReport,
    seconds: float,
    sparsity: float,
    *,
    dense: Mapping[str, float] | None = None,
    failed: str = "",
) -> dict[str, Any]:
    """What `Outputs.write_summary` takes; the user's numbers of the pruned model come later."""
    return {
        "optiprune": __version__,
        "failed": failed or None,
        "seconds": seconds,
        "sparsity_asked": sparsity,
        "dense": dense,
        "pruned": None,
        "report": report,
    }


def history_line(record: Any) -> str:
    """One step as one line of JSON."""
    table = record.as_dict() if hasattr(record, "as_dict") else record
    return json.dumps(plain(table), allow_nan=False) + "\n"
