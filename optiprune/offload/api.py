"""`prune_pretrained`: a model directory and calibration data in, a pruned model directory out."""

from __future__ import annotations

import re
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from optiprune.arguments import kept_steps, make_solver, settings_of, split_samples
from optiprune.config import Config, ConfigError
from optiprune.config.run_files import MASKS
from optiprune.durable import file_sha256, locked
from optiprune.engine.identity import check_identity, data_hash, options_of, versions
from optiprune.engine.records import StepRecord
from optiprune.engine.result import RunReport
from optiprune.engine.steps import StepStore
from optiprune.engine.threads import fixed_threads
from optiprune.masks.file import write_file
from optiprune.planning import available_bytes
from optiprune.planning.plan import require_memory
from optiprune.progress import StepProgress
from optiprune.solvers import Solver

from .checkpoint import INDEX, SINGLE
from .errors import ModelDirectoryError
from .output import ShardWriter
from .run import OffloadRun
from .skeleton import open_skeleton

__all__ = ["OffloadPlan", "OffloadResult", "plan_pretrained", "prune_pretrained"]

_WAITING = "unfinished-model"


@dataclass(frozen=True, slots=True)
class OffloadResult:
    """What `prune_pretrained` returns; the model and its masks are in ``folder``.

    Attributes
    ----------
    folder : that ``from_pretrained`` loads
    report : `RunReport`, with a row per layer
    history : a `StepRecord` for every block of rows
    config : the config that was run
    """

    folder: Path
    report: RunReport
    history: tuple[StepRecord, ...]
    config: Config


@dataclass(frozen=True, slots=True)
class OffloadPlan:
    """What `plan_pretrained` returns.

    Attributes
    ----------
    layers : name -> (rows, columns), in the order of the model
    blocks : of the model
    samples, holdout_samples : to fit and to judge by; ``length`` tokens each
    memory : bytes by what they are for, held at once at the peak, beyond those of now
    available : bytes that the machine would give
    notes : as in `RunReport`
    """

    layers: Mapping[str, tuple[int, int]]
    blocks: int
    samples: int
    holdout_samples: int
    length: int
    memory: Mapping[str, int]
    available: int
    notes: tuple[str, ...]

    def kinds(self) -> dict[tuple[str, tuple[int, int]], int]:
        """How many layers there are of each (name with stars for numbers, shape)."""
        return dict(Counter((re.sub(r"\.\d+\.", ".*.", n), s) for n, s in self.layers.items()))

    def require_memory(self) -> None:
        """Raise `TooLargeError` if more is needed than there is."""
        require_memory(self.memory, self.available)


def prune_pretrained(
    source: str | Path,
    out: str | Path,
    data: Iterable[Any],
    *,
    sparsity: float | None = None,
    refit: bool | None = None,
    pattern: str | None = None,
    solver: str | Mapping[str, Any] | Solver | None = None,
    holdout: Iterable[Any] | None = None,
    include: Sequence[str] | None = None,
    exclude: Sequence[str] | None = None,
    preset: str | None = None,
    config: Config | Mapping[str, Any] | None = None,
    seed: int | None = None,
    activations: Literal["memory", "disk"] = "memory",
    expert_tokens: int = 256,
    trust_remote_code: bool = False,
    device: str | torch.device = "cpu",
    force: bool = False,
    callback: Callable[[StepRecord], None] | None = None,
    progress: bool | None = None,
    steps: str | Path | StepStore | None = None,
) -> OffloadResult:
    """Prune a causal language model of Hugging Face Transformers, one block in memory at a time.

    Layers are decided as `optimize_masks` does with ``objective = "reconstruction"``; the Linear
    layers of the blocks take part (GPT-2's Conv1D and the experts of a mixture too), embeddings and
    the head do not. Weights are run in float32 and written in the type that they were stored in.

    Parameters
    ----------
    source : directory with ``config.json`` and safetensors, whole or in shards; not changed
    out : directory of the pruned model, made if missing: shards with their index, the other files
        of ``source``, and ``masks.safetensors`` (a mask file, see `MaskSet.load`)
    data, holdout : iterables of batches of token ids, int64 (samples, tokens), or dicts with
        ``input_ids``; without ``holdout`` a share of ``data`` judges
    sparsity, refit, pattern, solver, include, exclude, preset, config, seed : as for
        `optimize_masks`; names are those of modules, such as "model.layers.0.mlp.up_proj"
    activations : where what runs between two blocks is kept, "memory" or "disk" (in ``out``; then
        the dense block runs anew for each stage of its layers)
    expert_tokens : layers of experts that saw fewer tokens in the calibration data keep their
        largest weights and are not re-fitted; the report names them
    trust_remote_code : run the code that the directory asks for; without it such a model is refused
    device : to run blocks on
    force : replace a model in ``out``
    callback, progress, steps : as for `optimize_masks`

    Returns
    -------
    OffloadResult

    Raises
    ------
    ModelDirectoryError
        No model that is a chain of blocks, weights that are missing, damaged or quantised, code of
        its own, ``out`` equal to ``source`` or with a model in it.
    ConfigError
        An option that does not exist, or that needs the whole model in memory: the global
        objective, an allocation, ``tune.epochs``.
    LayerError, CalibrationError, BudgetError, SolverError, TooLargeError, StepFailedError
        As for `optimize_masks`.
    RunMismatchError, JournalError, LockedError, RunInterruptedError
        As for `optimize_masks`; steps that are there stay there.
    """
    source, out = Path(source), Path(out)
    _require_place(source, out, force)
    settings = settings_of(
        config, sparsity, None, refit, pattern, solver, None, include, exclude, preset, seed
    )
    run = _run_of(
        source,
        data,
        holdout,
        solver,
        settings,
        activations,
        expert_tokens,
        trust_remote_code,
        _device(device),
    )
    run.prepare()
    where = run.skeleton.device
    require_memory(run.memory(), available_bytes(where))
    new = not out.exists()
    try:
        with (
            _alone(out, steps is None) as waiting,
            StepProgress(progress) as line,
            fixed_threads(settings.threads),
            kept_steps(steps) as store,
        ):
            run.callback, run.steps = line.both(callback), store
            _check_steps(run, source)
            writer = ShardWriter(run.skeleton, source, waiting, store)
            report = run.run(writer)
            writer.complete()
            write_file(waiting / MASKS, run.masks, {}, {}, run.config)
            writer.move(out)
    finally:
        if new and out.is_dir() and not any(out.iterdir()):
            out.rmdir()
    return OffloadResult(out, report, tuple(run.history), run.config)


def plan_pretrained(
    source: str | Path,
    data: Iterable[Any],
    *,
    solver: str | Mapping[str, Any] | Solver | None = None,
    holdout: Iterable[Any] | None = None,
    config: Config | Mapping[str, Any] | None = None,
    activations: Literal["memory", "disk"] = "memory",
    expert_tokens: int = 256,
    trust_remote_code: bool = False,
    device: str | torch.device = "cpu",
) -> OffloadPlan:
    """What `prune_pretrained` with these arguments would do and need; no weight is read.

    Raises as `prune_pretrained` before it begins, but for what concerns its ``out``, and for
    `TooLargeError`, which `OffloadPlan.require_memory` raises.
    """
    settings = settings_of(config, None, None, None, None, solver, None, None, None, None, None)
    where = _device(device)
    run = _run_of(
        Path(source),
        data,
        holdout,
        solver,
        settings,
        activations,
        expert_tokens,
        trust_remote_code,
        where,
    )
    run.prepare()
    return OffloadPlan(
        layers=run.shapes(),
        blocks=len(run.skeleton.blocks),
        samples=run.train.n,
        holdout_samples=0 if run.holdout is None else run.holdout.n,
        length=run.length,
        memory=run.memory(),
        available=available_bytes(where),
        notes=tuple(run.notes),
    )


def _run_of(
    source: Path,
    data: Iterable[Any],
    holdout: Iterable[Any] | None,
    solver: str | Mapping[str, Any] | Solver | None,
    config: Config,
    activations: Literal["memory", "disk"],
    expert_tokens: int,
    trust_remote_code: bool,
    device: torch.device,
) -> OffloadRun:
    """A run that is not prepared yet."""
    chosen, stop = make_solver(solver, config)
    skeleton = open_skeleton(source, trust_remote_code=trust_remote_code, device=device)
    train, held = split_samples(device, data, holdout, config)
    return OffloadRun(
        skeleton=skeleton,
        train=train,
        holdout=held,
        config=config,
        solver=chosen,
        stop=stop,
        activations=activations,
        floor=expert_tokens,
    )


def _device(name: str | torch.device) -> torch.device:
    """Raises `ConfigError` for a device that there is not."""
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError) as e:
        raise ConfigError(f"device = {str(name)!r} cannot be used: {str(e).splitlines()[0]}") from e
    return device


def _require_place(source: Path, out: Path, force: bool) -> None:
    if not source.is_dir():
        raise ModelDirectoryError(f"there is no directory {source}")
    if out.exists() and not out.is_dir():
        raise ModelDirectoryError(f"{out} is a file; the pruned model is a directory")
    if source.resolve() == out.resolve():
        raise ModelDirectoryError(f"{out} is the dense model's own directory; choose another")
    kept = (INDEX, SINGLE)
    # what else lies beside a run that has not ended is its own
    names = kept if (out / _WAITING).is_dir() else (*kept, MASKS, "config.json")
    there = [name for name in names if (out / name).exists()]
    there += sorted(p.name for p in out.glob("pytorch_model*"))
    if there and not force:
        raise ModelDirectoryError(
            f"{out} holds a model already ({', '.join(there[:3])}); choose another directory, or "
            "replace it with force"
        )


@contextmanager
def _alone(out: Path, once: bool) -> Iterator[Path]:
    """The folder in which shards wait, with ``out`` locked; ``once``: it does not stay."""
    with locked(out):
        try:
            yield out / _WAITING
        finally:
            if once:  # there is nothing to go on from
                shutil.rmtree(out / _WAITING, ignore_errors=True)
            with suppress(OSError):  # without a shard there is nothing either
                (out / _WAITING).rmdir()
            (out / ".lock").unlink(missing_ok=True)


def _check_steps(run: OffloadRun, source: Path) -> None:
    """Raise `RunMismatchError` if the steps that are there do not belong to this run."""
    device = run.skeleton.device
    options = options_of(run.config, run.solver, device)
    table = {f"option {k}": v for k, v in options.items()} | {
        "expert tokens": str(run.floor),
        "where activations are": run.activations,
        "the model's config": file_sha256(source / "config.json"),
        "the device": device.type,
        "the calibration data": data_hash(run.train),
        "the held-out data": "none" if run.holdout is None else data_hash(run.holdout),
    }
    check_identity(run.steps, table | versions("transformers"))
