"""``optiprune shrink``: a smaller model within a budget, with the plan that made it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, cast

import typer
from rich.table import Table

from optiprune.durable import replacing

from .callables import CallableLoader
from .console import output
from .errors import Debug, InputError, reporting
from .returned import as_iterable, as_module, as_numbers

if TYPE_CHECKING:
    from optiprune.shrinking import StructureResult

__all__ = ["shrink_command"]

PLAN, WEIGHTS, SUMMARY = "plan.json", "weights.safetensors", "summary.json"
Share = float | None


def shrink_command(
    factory: Annotated[
        str,
        typer.Argument(
            help="Function that returns the trained model: file.py:function or "
            "package.module:function.",
            show_default=False,
        ),
    ],
    calibration: Annotated[
        str,
        typer.Option(
            help="Function that returns batches of inputs, or of pairs (inputs, targets).",
            show_default=False,
        ),
    ],
    macs: Annotated[Share, typer.Option(help="Share of the multiply-adds that may stay.")] = None,
    parameters: Annotated[Share, typer.Option(help="Share of the parameters.")] = None,
    memory: Annotated[
        Share, typer.Option(help="Share of the bytes of parameters and results.")
    ] = None,
    latency: Annotated[
        Share, typer.Option(help="Share of the seconds, by a table measured on this machine.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the results.")] = Path("shrunk"),
    evaluate: Annotated[
        str | None,
        typer.Option(
            help="Function of a model that returns a table of numbers, such as accuracy.",
            show_default=False,
        ),
    ] = None,
    objective: Annotated[
        str, typer.Option(help="What chooses units: reconstruction or global.")
    ] = "reconstruction",
    multiple: Annotated[int, typer.Option(help="Widths are multiples of it.")] = 8,
    minimum: Annotated[float, typer.Option(help="Share of a group that stays at least.")] = 0.1,
    solutions: Annotated[int, typer.Option(help="Choices of units to try.")] = 1,
    refit: Annotated[
        bool, typer.Option("--refit/--no-refit", help="Fit what is left again.")
    ] = True,
    seed: Annotated[int, typer.Option(help="Seed of everything that is drawn.")] = 0,
    force: Annotated[bool, typer.Option("--force", help="Replace results in the folder.")] = False,
    debug: Debug = False,
) -> None:
    """Remove channels, neurons and heads within a budget; the model stays one of its own classes.

    Writes the plan, the smaller model's weights and a summary. In Python,
    ``shrink(model, Plan.load("plan.json"), example).model`` makes the smaller model again, for the
    weights to be loaded into.
    """
    with reporting(debug):
        if out.exists() and not out.is_dir():
            raise InputError(f"--out {out} is a file")
        there = [n for n in (PLAN, WEIGHTS, SUMMARY) if (out / n).exists()]
        if there and not force:
            raise InputError(f"{out} holds {', '.join(there)} already; give --force, or another")
        loader = CallableLoader(Path.cwd())
        build = loader.load("the model", factory, 0)
        batches = loader.load("--calibration", calibration, 0)
        judge = None if evaluate is None else loader.load("--evaluate", evaluate, 1)
        from optiprune.shrinking import optimize_structure
        from optiprune.structure import GateError

        model = as_module("the model", factory, build())
        data = as_iterable("--calibration", batches())
        try:
            result = optimize_structure(
                model,
                data,
                macs=macs,
                parameters=parameters,
                memory=memory,
                latency=latency,
                objective=cast(Literal["global", "reconstruction"], objective),
                multiple=multiple,
                minimum=minimum,
                solutions=solutions,
                refit=refit,
                seed=seed,
            )
        except GateError as error:
            raise InputError(f"the smaller model was refused: {error}") from error
        scores = None
        if judge is not None:
            before, after = (as_numbers("--evaluate", judge(m)) for m in (model, result.model))
            scores = before, after
        _write(result, out, scores)
        _show(result, scores, out)


def _write(
    result: StructureResult, out: Path, scores: tuple[dict[str, float], dict[str, float]] | None
) -> None:
    from safetensors.torch import save_model

    out.mkdir(parents=True, exist_ok=True)
    summary = {
        "widths": dict(result.widths),
        "before": dict(result.before),
        "after": dict(result.after),
        "loss_before": result.loss_before,
        "loss_after": result.loss_after,
        "damage": result.chosen.damage,
        "bound": result.chosen.bound,
        "optimal": result.chosen.optimal,
        "error": max(c.error for c in result.shrunk.compared),
        "measured_latency": {
            "before": result.shrunk.latency_before,
            "after": result.shrunk.latency_after,
        },
        "shapes": {k: {"before": a, "after": b} for k, (a, b) in result.shrunk.shapes.items()},
        "scores": None if scores is None else {"before": scores[0], "after": scores[1]},
    }
    with (
        replacing(out / PLAN) as plan,
        replacing(out / WEIGHTS) as weights,
        replacing(out / SUMMARY) as table,
    ):  # none of them is ever half there under its own name
        result.plan.save(plan)
        save_model(result.model, str(weights))
        table.write_text(json.dumps(summary, indent=1) + "\n")


def _show(
    result: StructureResult,
    scores: tuple[dict[str, float], dict[str, float]] | None,
    out: Path,
) -> None:
    console = output()
    table = Table(title="What it gained", title_justify="left")
    for name in ("", "before", "after", "share"):
        table.add_column(name, justify="right" if name else "left")
    labels = {"macs": "multiply-adds", "memory": "memory, bytes", "latency": "seconds, predicted"}
    for key, before in result.before.items():
        after = result.after[key]
        digits = ".4g" if key == "latency" else ",.0f"
        label = labels.get(key, key)
        table.add_row(label, f"{before:{digits}}", f"{after:{digits}}", f"{after / before:.1%}")
    first, second = result.shrunk.latency_before, result.shrunk.latency_after
    if first is not None and second is not None:
        label = "seconds, measured"
        table.add_row(label, f"{first:.4g}", f"{second:.4g}", f"{second / first:.1%}")
    table.add_row("loss", f"{result.loss_before:.4f}", f"{result.loss_after:.4f}", "")
    for key, before in scores[0].items() if scores else ():
        table.add_row(key, f"{before:.4f}", f"{scores[1].get(key, float('nan')):.4f}", "")  # type: ignore[index]
    console.print(table)
    widths = Table(title="Widths", title_justify="left")
    widths.add_column("group", overflow="fold")
    widths.add_column("kind")
    widths.add_column("units", justify="right")
    widths.add_column("stay", justify="right")
    for group in result.structure.groups:
        widths.add_row(group.name, group.kind, str(group.size), str(result.widths[group.name]))
    console.print(widths)
    error = max(c.error for c in result.shrunk.compared)
    proof = "proven best" if result.chosen.optimal else "the best found in time"
    console.print(f"widths: {proof}; smaller against masked model: relative error {error:.1e}")
    console.print(f"written: {', '.join(str(out / n) for n in (PLAN, WEIGHTS, SUMMARY))}")
