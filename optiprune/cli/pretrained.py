"""``optiprune prune --model DIR``: a model directory in, a pruned model directory out."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.markup import escape
from rich.table import Table

from .callables import check_solver
from .console import output
from .errors import NO_SOLUTION, InputError
from .interrupts import stop_between_steps
from .outputs import Outputs, summary_of
from .plan_table import memory_table
from .pretrained_config import PretrainedRunConfig
from .result_tables import layers_table, show_notes
from .run_tracking import check_trackers, run_tracking, tell_end
from .unfinished import Unfinished

if TYPE_CHECKING:
    from optiprune.durable import Journal
    from optiprune.offload import OffloadResult
    from optiprune.tracking import Tracking

__all__ = ["PretrainedInputs", "plan_directory", "prune_directory"]

_LENGTH = 2048


@dataclass(frozen=True, slots=True)
class PretrainedInputs:
    """What a `PretrainedRunConfig` names; ``run`` has absolute paths."""

    run: PretrainedRunConfig

    @classmethod
    def find(cls, run: PretrainedRunConfig, folder: Path) -> PretrainedInputs:
        """Raises `InputError` for a directory or a text that is not there."""
        check_solver(run)
        check_trackers(run)
        run = run.absolute(folder)
        if not Path(run.pretrained.dir).is_dir():
            raise InputError(f"pretrained.dir: there is no directory {run.pretrained.dir}")
        if not Path(run.text.file).is_file():
            raise InputError(f"text.file: there is no file {run.text.file}")
        return cls(run)

    def samples(self) -> list[dict[str, Any]]:
        """Windows of tokens. Raises `CalibrationError` or `ModelDirectoryError`."""
        from optiprune.offload import context_length, documents, load_tokenizer, token_windows

        text, folder = self.run.text, Path(self.run.pretrained.dir)
        trust = self.run.pretrained.trust_remote_code
        most = context_length(folder)
        length = text.length
        if length is None:
            length = _LENGTH if most is None else min(_LENGTH, most)
        elif most is not None and length > most:
            raise InputError(f"text.length = {length}: the model takes {most} tokens at most")
        tokenizer = load_tokenizer(folder, trust_remote_code=trust)
        texts = documents(Path(text.file), text.key)
        windows = token_windows(texts, tokenizer, text.samples, length, text.skip)
        return [{"input_ids": windows}]

    def arguments(self) -> dict[str, Any]:
        """Of `prune_pretrained` and `plan_pretrained` alike."""
        section = self.run.pretrained
        return {
            "config": self.run.engine_config(),
            "activations": section.activations,
            "expert_tokens": section.expert_tokens,
            "trust_remote_code": section.trust_remote_code,
            "device": section.device,
        }


def plan_directory(inputs: PretrainedInputs) -> None:
    """Show what a run would do and need. Raises `TooLargeError` if it would not fit."""
    from optiprune.offload import plan_pretrained

    plan = plan_pretrained(inputs.run.pretrained.dir, inputs.samples(), **inputs.arguments())
    layers = Table("layers", "shape", "weights", title="Layers", title_justify="left")
    for (name, shape), count in plan.kinds().items():
        rows, cols = shape
        layers.add_row(f"{count} x {escape(name)}", f"{rows} x {cols}", f"{count * rows * cols:,}")
    console = output()
    console.print(layers)
    console.print(memory_table(plan.memory, {"available": plan.available}))
    console.print(
        f"{plan.blocks} blocks, {plan.samples} samples of {plan.length} tokens to fit and "
        f"{plan.holdout_samples} to judge by"
    )
    for note in plan.notes:
        console.print(f"note: {escape(note)}", soft_wrap=True)
    plan.require_memory()


def prune_directory(
    inputs: PretrainedInputs,
    outputs: Outputs,
    journal: Journal,
    unfinished: Unfinished,
    *,
    force: bool,
    resumed: bool = False,
) -> int:
    """Prune and write; the exit code. A run that ends early leaves its steps, and no model.

    Parameters
    ----------
    force : whether a model that lies there is replaced
    resumed : whether trackers have seen steps of this run
    """
    from optiprune.engine.errors import StepFailedError
    from optiprune.engine.steps import JournalSteps
    from optiprune.offload import prune_pretrained

    started = time.perf_counter()
    samples = inputs.samples()
    try:
        with (
            stop_between_steps() as stop,
            run_tracking(inputs.run, outputs.folder, resumed=resumed) as tracking,
        ):
            result = prune_pretrained(
                inputs.run.pretrained.dir,
                inputs.run.output.dir,
                samples,
                **inputs.arguments(),
                force=force,
                callback=tracking.callback,
                steps=JournalSteps(journal, stop),
            )
            _write(inputs, outputs, result, time.perf_counter() - started, tracking)
    except (KeyboardInterrupt, OSError):
        if unfinished.hint:
            typer.echo(unfinished.hint, err=True)
        raise
    except StepFailedError as e:
        hint = unfinished.hint or "no step was done"
        typer.echo(f"error: {e}\nNo model was written. {hint}", err=True)
        return NO_SOLUTION
    unfinished.discard()
    _show(inputs, result, time.perf_counter() - started)
    return 0


def _write(
    inputs: PretrainedInputs,
    outputs: Outputs,
    result: OffloadResult,
    seconds: float,
    tracking: Tracking,
) -> None:
    """The records of the run, beside the model."""
    summary = summary_of(result.report, seconds, inputs.run.prune.sparsity)
    outputs.begin()
    outputs.write_config(inputs.run)
    outputs.write_history(result.history)
    outputs.write_summary(summary)
    tell_end(tracking, summary, None, outputs.folder)


def _show(inputs: PretrainedInputs, result: OffloadResult, seconds: float) -> None:
    report = result.report
    console = output()
    console.print(layers_table(report))
    console.print(
        f"density {report.density:.4f}, {report.steps} steps, {report.accepted} accepted, solver "
        f"{report.solver}, {seconds:.1f} s, seed {inputs.run.seed}"
    )
    show_notes(report)
    console.print(f"the model is in {escape(str(result.folder))}", soft_wrap=True)
