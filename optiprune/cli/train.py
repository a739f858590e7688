"""``optiprune train``: train, prune by a rule or the engine, fine-tune; a killed run goes on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from optiprune.durable import replacing

from .callables import CallableLoader, absolute_reference
from .console import output
from .errors import Debug, InputError, reporting
from .model_inputs import ModelInputs, absolute_model
from .returned import as_iterable, as_module, as_numbers
from .toml_text import toml_text

if TYPE_CHECKING:
    from torch import nn

    from optiprune.training import TrainingResult

    from .train_config import TrainRunConfig

__all__ = ["train_command"]

WEIGHTS, MASKS, SUMMARY, CONFIG, FIGURE = (
    "model.safetensors",
    "masks.safetensors",
    "summary.json",
    "config.toml",
    "torque.png",
)
CHECKPOINTS = ("train.ckpt", "chosen.ckpt", "finetune.ckpt")


def train_command(
    file: Annotated[
        Path, typer.Argument(help="Run file (TOML); see `optiprune config --training`.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results, in place of output.dir.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="In place of seed.", show_default=False)] = None,
    force: Annotated[
        bool, typer.Option("--force", help="Replace finished results in the folder.")
    ] = False,
    debug: Debug = False,
) -> None:
    """Train a model, remove or mask what a rule or the engine chooses, and fine-tune what is left.

    A run that was killed goes on when it is started again. Writes the model's weights, plans or
    masks, and a summary; in Python, ``shrink(model, Plan.load("plan-1.json"), example).model``
    makes the smaller model again, for the weights to be loaded into.
    """
    with reporting(debug):
        from .run_config import load_file
        from .train_config import TrainRunConfig

        here = file.resolve().parent
        run = _absolute(
            load_file(TrainRunConfig, file, {} if seed is None else {"seed": seed}), here
        )
        folder = Path(run.output.dir) if out is None else out.resolve()
        _check_folder(folder, force)
        find = _Functions(run, here)
        model = find.model.make()
        data = as_iterable("data.train", find.train())
        calibration: Any = run.data.calibration
        if find.calibration is not None:
            calibration = as_iterable("data.calibration", find.calibration())
        teacher = None
        if find.teacher is not None:
            teacher = as_module("data.teacher", str(run.data.teacher), find.teacher())
        from optiprune.training import prune_in_training

        if force and (folder / SUMMARY).exists():  # else it is a run that was killed: it goes on
            for name in (SUMMARY, *CHECKPOINTS):
                (folder / name).unlink(missing_ok=True)
        result = prune_in_training(
            model,
            data,
            run.training(),
            calibration=calibration,
            teacher=teacher,
            evaluate=find.evaluate,
            augment=find.augment,
            folder=folder,
        )
        _write(result, run, folder)
        _show(result, folder)


class _Functions:
    """What the file names, found before any work starts."""

    def __init__(self, run: TrainRunConfig, here: Path) -> None:
        loader = CallableLoader(here)
        data = run.data

        def find(key: str, reference: str | None, n: int) -> Callable[..., Any] | None:
            return None if reference is None else loader.load(key, reference, n)

        self.model = ModelInputs.find(run.model, loader)
        self.train = loader.load("data.train", data.train, 0)
        named = None if data.calibration == "synthetic" else data.calibration
        self.calibration = find("data.calibration", named, 0)
        self.augment = find("data.augment", data.augment, 2)
        self.teacher = find("data.teacher", data.teacher, 0)
        judge = find("data.evaluate", data.evaluate, 1)
        self.evaluate = None if judge is None else _numbers(judge)


def _absolute(run: TrainRunConfig, folder: Path) -> TrainRunConfig:
    """Paths made absolute, so that the config written beside the results can be run again."""
    references = run.data.model_dump(exclude_none=True)
    data = {
        k: v if v == "synthetic" else absolute_reference(folder, v) for k, v in references.items()
    }
    return run.model_copy(
        update={
            "data": run.data.model_copy(update=data),
            "model": absolute_model(run.model, folder),
            "output": run.output.model_copy(
                update={"dir": str((folder / run.output.dir).resolve())}
            ),
        }
    )


def _numbers(judge: Callable[..., Any]) -> Callable[[nn.Module], dict[str, float]]:
    def evaluate(model: nn.Module) -> dict[str, float]:
        return as_numbers("data.evaluate", judge(model))

    return evaluate


def _check_folder(folder: Path, force: bool) -> None:
    if folder.exists() and not folder.is_dir():
        raise InputError(f"output folder {folder} is a file")
    # the summary is written last: without it a run was not finished
    if (folder / SUMMARY).exists() and not force:
        raise InputError(
            f"{folder} holds results already ({SUMMARY}); choose another folder with --out, or "
            "replace them with --force"
        )


def _write(result: TrainingResult, run: TrainRunConfig, folder: Path) -> None:
    """None of the files is ever half there under its own name; the summary is the last."""
    from safetensors.torch import save_model

    folder.mkdir(parents=True, exist_ok=True)
    for old in [*folder.glob("plan-*.json"), folder / MASKS, folder / SUMMARY, folder / FIGURE]:
        old.unlink(missing_ok=True)
    with replacing(folder / WEIGHTS) as part:
        save_model(result.model, str(part))
    if result.masks is not None:
        result.masks.save(folder / MASKS)
    for i, plan in enumerate(result.plans, 1):
        plan.save(folder / f"plan-{i}.json")
    with replacing(folder / CONFIG) as part:
        part.write_text(toml_text(run.model_dump(mode="json")), encoding="utf-8")
    if result.concentration is not None:
        _draw(result, folder / FIGURE)
    summary = {
        "left": result.left,
        "decided_by": result.decided_by,
        "parameters": {"before": result.parameters[0], "after": result.parameters[1]},
        "macs": None
        if result.macs is None
        else {"before": result.macs[0], "after": result.macs[1]},
        "scores_before": result.scores_before,
        "phases": [
            {"name": p.name, "seconds": p.seconds, "losses": p.losses, "scores": p.scores}
            for p in result.phases
        ],
    }
    with replacing(folder / SUMMARY) as part:
        part.write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")


def _draw(result: TrainingResult, path: Path) -> None:
    """The figure of the torque, where matplotlib is installed."""
    from importlib.util import find_spec

    from optiprune.training import plot_concentration

    if result.concentration is None:
        return
    if find_spec("matplotlib") is None:
        output().print(f"no {path.name}: matplotlib is not installed (pip install optiprune[plot])")
        return
    plot_concentration(*result.concentration, path)


def _show(result: TrainingResult, folder: Path) -> None:
    console = output()
    names = list(result.scores_before or {})
    table = Table("phase", "seconds", "last loss", *names, title="Result", title_justify="left")
    if result.scores_before is not None:
        table.add_row("as given", "", "", *(f"{v:.6g}" for v in result.scores_before.values()))
    for p in result.phases:
        loss = f"{p.losses[-1]:.4g}" if p.losses else ""
        scores = [f"{(p.scores or {}).get(n, float('nan')):.6g}" for n in names]
        table.add_row(p.name, f"{p.seconds:.1f}", loss, *scores)
    console.print(table)
    before, after = result.parameters
    if result.masks is not None:
        console.print(f"{result.left:.2%} of the weights are left; they are masked, not removed")
    else:
        console.print(f"parameters: {before:,} -> {after:,} ({after / before:.1%})")
    if result.macs is not None:
        first, last = result.macs
        console.print(f"multiply-adds: {first:,.0f} -> {last:,.0f} ({last / first:.1%})")
    console.print(f"chosen by the {result.decided_by}; results in {escape(str(folder))}")
