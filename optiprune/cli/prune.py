"""``optiprune prune RUN.toml``: a trained model and calibration data in, masks on disk."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from .console import output
from .errors import INTERRUPTED, NO_SOLUTION, Debug, InputError, reporting
from .interrupts import stop_between_steps
from .outputs import Outputs, summary_of
from .plan_table import show_plan
from .pretrained import PretrainedInputs, plan_directory, prune_directory
from .pretrained_config import PretrainedRunConfig, load_prune_config
from .result_tables import layers_table, show_notes
from .run_config import RunConfig
from .run_inputs import RunInputs
from .run_tracking import run_tracking, tell_end
from .unfinished import Unfinished

if TYPE_CHECKING:
    from torch import nn

    from optiprune.api import MaskResult
    from optiprune.durable import Journal
    from optiprune.engine.records import StepRecord

__all__ = ["find_inputs", "prune_command", "run_inputs"]

_NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def prune_command(
    file: Annotated[
        Path | None,
        typer.Argument(help="Run file (TOML); see `optiprune config`.", show_default=False),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Directory of a language model of Hugging Face Transformers, in place of "
            "pretrained.dir; with --data and --out no run file is needed.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            help="Text or .jsonl to calibrate such a model on, in place of text.file.",
            show_default=False,
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="In place of text.samples.", show_default=False)
    ] = None,
    length: Annotated[
        int | None, typer.Option(help="In place of text.length.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the results, in place of output.dir.")
    ] = None,
    sparsity: Annotated[
        float | None, typer.Option(help="In place of prune.sparsity.", show_default=False)
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(
            help="fast, balanced or best, in place of preset; the file's own options win.",
            show_default=False,
        ),
    ] = None,
    solver: Annotated[
        str | None,
        typer.Option(
            help="Solver with its defaults, in place of the [solver] table.", show_default=False
        ),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="In place of seed.", show_default=False)] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace results that lie there.")] = False,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Show layers, problems, memory and time, and stop there."),
    ] = False,
    debug: Debug = False,
) -> None:
    """Prune a model as a run file says; write masks, pruned weights, history and a summary."""
    with reporting(debug):
        changes: dict[str, Any] = {}
        if sparsity is not None:
            changes["prune.sparsity"] = sparsity
        if preset is not None:
            changes["preset"] = preset
        if solver is not None:
            changes["solver"] = {"name": solver}
        if seed is not None:
            changes["seed"] = seed
        if out is not None:
            changes["output.dir"] = str(out.resolve())
        if model is not None:
            changes["pretrained.dir"] = str(model.resolve())
        if data is not None:
            changes["text.file"] = str(data.resolve())
        if samples is not None:
            changes["text.samples"] = samples
        if length is not None:
            changes["text.length"] = length
        if file is None and None in (model, data, out):
            raise InputError("give a run file, or --model DIR, --data FILE and --out DIR")
        run = load_prune_config(file, changes)
        here = Path.cwd() if file is None else file.resolve().parent
        inputs = find_inputs(run, here)
        if dry_run:
            _show_planned(inputs)
            return
        folder = Path(inputs.run.output.dir)
        unfinished = Unfinished(folder)
        if not force:
            unfinished.check_none()
        outputs = Outputs(inputs.run, folder, force=force)
        with unfinished.begin(inputs.run, here) as journal:
            code = run_inputs(inputs, outputs, journal, unfinished, force=force)
        if code:
            raise typer.Exit(code)


def find_inputs(run: RunConfig | PretrainedRunConfig, folder: Path) -> RunInputs | PretrainedInputs:
    """What a run names, found; relative paths start at ``folder``. Raises `InputError`."""
    if isinstance(run, PretrainedRunConfig):
        return PretrainedInputs.find(run, folder)
    return RunInputs.find(run, folder)


def run_inputs(
    inputs: RunInputs | PretrainedInputs,
    outputs: Outputs,
    journal: Journal,
    unfinished: Unfinished,
    *,
    force: bool,
    resumed: bool = False,
) -> int:
    """Prune and write; the exit code, see `prune_run`."""
    if isinstance(inputs, PretrainedInputs):
        return prune_directory(inputs, outputs, journal, unfinished, force=force, resumed=resumed)
    return prune_run(inputs, outputs, journal, unfinished, resumed=resumed)


def _show_planned(inputs: RunInputs | PretrainedInputs) -> None:
    """Raises `TooLargeError` if the run would not fit."""
    from optiprune.api import plan_masks

    if isinstance(inputs, PretrainedInputs):
        plan_directory(inputs)
        return
    model = inputs.model()
    calibration, holdout = inputs.calibration(), inputs.holdout()
    plan = plan_masks(model, calibration, holdout=holdout, config=inputs.run.engine_config())
    show_plan(plan)
    plan.require_memory()


def prune_run(
    inputs: RunInputs,
    outputs: Outputs,
    journal: Journal,
    unfinished: Unfinished,
    *,
    resumed: bool = False,
) -> int:
    """Prune and write; the exit code, not 0 if only what was reached until then is on disk.

    Parameters
    ----------
    journal : of the steps, which are taken from there where they are there
    unfinished : is taken away when the results are on disk
    resumed : whether trackers have seen steps of this run
    """
    model = inputs.model()
    before = inputs.evaluate(model)
    calibration, holdout = inputs.calibration(), inputs.holdout()
    with run_tracking(inputs.run, outputs.folder, resumed=resumed) as tracking:
        started = time.perf_counter()
        try:
            result, failure, code = _optimized(
                inputs, model, calibration, holdout, journal, tracking.callback
            )
            seconds = time.perf_counter() - started
            asked = inputs.run.prune.sparsity
            summary = summary_of(result.report, seconds, asked, dense=before, failed=failure)
            _write(inputs.run, outputs, model, result, summary)
        except OSError as e:
            if e.errno not in _NO_SPACE or not unfinished.hint:
                raise
            raise InputError(f"{e}. When there is space: {unfinished.hint}") from e
        except KeyboardInterrupt:
            if unfinished.hint:
                typer.echo(unfinished.hint, err=True)
            raise
        if not failure:
            unfinished.discard()
        after = inputs.evaluate(model)  # the user's code may fail; the result is on disk by now
        outputs.write_summary({**summary, "pruned": after})
        tell_end(tracking, summary, after, outputs.folder)
    _print(inputs.run, result, before, after, seconds, outputs)
    if failure:
        hint = unfinished.hint or "no step was done"
        typer.echo(f"error: {failure}\nThe result up to there was written. {hint}", err=True)
    return code


def _optimized(
    inputs: RunInputs,
    model: nn.Module,
    calibration: Any,
    holdout: Any,
    journal: Journal,
    callback: Callable[[StepRecord], None] | None,
) -> tuple[MaskResult, str, int]:
    """(the result, why it is not all, exit code); the model is masked."""
    from optiprune.api import optimize_masks
    from optiprune.engine.errors import StepFailedError
    from optiprune.engine.steps import JournalSteps

    try:
        with stop_between_steps() as stop:
            result = optimize_masks(
                model,
                calibration,
                holdout=holdout,
                config=inputs.run.engine_config(),
                callback=callback,
                steps=JournalSteps(journal, stop),
            )
        return result, "", 0
    except (StepFailedError, KeyboardInterrupt) as e:
        partial = getattr(e, "partial", None)
        if partial is None:
            raise
        partial.masks.apply(model)
        return partial, str(e), NO_SOLUTION if isinstance(e, StepFailedError) else INTERRUPTED


def _write(
    run: RunConfig,
    outputs: Outputs,
    model: nn.Module,
    result: MaskResult,
    summary: dict[str, Any],
) -> None:
    outputs.begin()
    outputs.write_config(run)
    outputs.write_history(result.history)
    outputs.write_masks(result.masks, config=run.engine_config())
    outputs.write_model(model)
    outputs.write_summary(summary)


def _print(
    run: RunConfig,
    result: MaskResult,
    before: dict[str, float] | None,
    after: dict[str, float] | None,
    seconds: float,
    outputs: Outputs,
) -> None:
    table = Table("", "dense", "pruned", title="Result", title_justify="left")
    table.add_row("density", "1", f"{result.density:.4f}")
    for name in sorted({*(before or {}), *(after or {})}):
        table.add_row(escape(name), _number(before, name), _number(after, name))
    console = output()
    console.print(layers_table(result.report))
    console.print(table)
    report = result.report
    console.print(
        f"{report.steps} steps, {report.accepted} accepted, solver {report.solver}, "
        f"{seconds:.1f} s, seed {run.seed}"
    )
    show_notes(report)
    console.print(f"results in {escape(str(outputs.folder))}", soft_wrap=True)


def _number(values: dict[str, float] | None, name: str) -> str:
    return "-" if values is None or name not in values else f"{values[name]:.6g}"
