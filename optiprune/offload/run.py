"""Prune a model directory block by block, one block in memory at a time."""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from optiprune.config import Config, ConfigError, ignored_options
from optiprune.curvature import CalibrationError, CalibrationSet, require_matches
from optiprune.curvature.activations import Activations, Keep
from optiprune.curvature.chain import Call
from optiprune.curvature.data import tree_leaves
from optiprune.curvature.layers import LayerError, chosen_names
from optiprune.engine.crew import open_crew, repeated_note, require_crew
from optiprune.engine.damping import fold, fold_count
from optiprune.engine.errors import RunInterruptedError
from optiprune.engine.identity import RunMismatchError
from optiprune.engine.layer_by_layer import rows_share
from optiprune.engine.reconstruction_result import RowBlockRecord
from optiprune.engine.records import StepRecord
from optiprune.engine.result import LayerReport, RunReport
from optiprune.engine.steps import NoSteps, StepStore
from optiprune.engine.window_tuning import WindowReport
from optiprune.masks.hashing import hash_tensor
from optiprune.solvers import Solver, Stop

from .block import BlockPruning, PrunedBlock, pass_through
from .errors import ModelDirectoryError
from .experts import LinearExperts, require_equal
from .first_calls import FirstCalls, first_calls, probe, real_outputs
from .kept_calls import DiskKeep, readdressed
from .memory import held_bytes
from .options import offloaded
from .output import PackedMasks, ShardWriter, require_apart
from .skeleton import Skeleton
from .text import position_limit

__all__ = ["OffloadRun"]


@dataclass(slots=True)
class OffloadRun:
    """A run over a model directory. `prepare` raises on bad input before any work starts.

    Attributes
    ----------
    train, holdout : token ids
    activations : where what runs between blocks is kept: 'memory', or 'disk', where the dense block
        is also run anew for each of its layers
    floor : tokens that a layer of an expert must have seen to be pruned by them
    """

    skeleton: Skeleton
    train: CalibrationSet
    holdout: CalibrationSet | None
    config: Config
    solver: Solver
    stop: Stop | None
    steps: StepStore = field(default_factory=NoSteps)
    activations: Literal["memory", "disk"] = "memory"
    floor: int = 256
    callback: Callable[[StepRecord], None] | None = None
    history: list[StepRecord] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    names: dict[str, list[str]] = field(init=False, default_factory=dict)
    masks: PackedMasks = field(init=False)
    _rows: list[LayerReport] = field(init=False, default_factory=list)
    _windows: list[WindowReport] = field(init=False, default_factory=list)
    _decided: int = field(init=False, default=0)

    def prepare(self) -> None:
        """Settle options and layers.

        Raises
        ------
        ConfigError, LayerError, ModelDirectoryError, CalibrationError
        """
        if self.activations not in ("memory", "disk"):
            raise ConfigError(f"activations = {self.activations!r}: must be 'memory' or 'disk'")
        if self.floor < 1:
            raise ConfigError(f"expert_tokens = {self.floor}: must be 1 or more")
        for data in (self.train, self.holdout):
            if data is not None:
                _require_tokens(data, self.skeleton.model)
        options, skeleton = self.config.layers, self.skeleton
        every = skeleton.linear_layers()
        chosen = chosen_names(every, include=options.include, exclude=options.exclude)
        require_matches("layers.sparsity", options.sparsity, every)
        if not chosen:
            raise LayerError("no Linear layer in the blocks is left to prune")
        for block in skeleton.blocks:
            self.names[block] = [n for n in chosen if n.startswith(f"{block}.")]
        weights = sum(rows * cols for rows, cols in self.shapes().values())
        self.config, notes = offloaded(self.config, weights, len(chosen), self.length)
        ignored = ignored_options(self.config)
        if ignored:
            notes.append(f"no effect with objective = 'reconstruction': {', '.join(ignored)}")
        self.notes += notes
        self.notes += [
            f"{n} ({size:,} weights) is no layer that is known here, and stays as it is"
            for n, size in skeleton.unseen_weights().items()
        ]
        require_apart(skeleton)
        require_crew(self.config, self.solver, self.stop, skeleton.device)
        self.masks = PackedMasks(skeleton)

    @property
    def length(self) -> int:
        """Tokens of the longest sample."""
        return max(_lengths(self.train))

    def shapes(self) -> dict[str, tuple[int, int]]:
        """(rows, columns) of the layers that take part, by name."""
        found = {}
        for name in (n for of in self.names.values() for n in of):
            rows, cols = self.skeleton.model.get_parameter(f"{name}.weight").shape
            found[name] = (int(rows), int(cols))
        return found

    def memory(self) -> dict[str, int]:
        """Bytes that are held at the same time, at the worst moment, by what they are for."""
        sets = [self.train] if self.holdout is None else [self.train, self.holdout]
        return held_bytes(
            self.skeleton,
            self.shapes(),
            self.config,
            sum(sum(_lengths(data)) for data in sets),
            self.length,
            fold_count(self.train, self.config) + len(sets) - 1,
            self.activations == "disk",
        )

    def run(self, writer: ShardWriter) -> RunReport:
        """All blocks, one after another; each is written when it is decided.

        Raises
        ------
        CalibrationError, BudgetError, StepFailedError, RunMismatchError, ModelDirectoryError
        ExecutorError
            Workers that were asked for cannot be had.
        RunInterruptedError
            Ctrl-C; what was decided is in the steps.
        """
        began = time.perf_counter()
        first, search, _ = np.random.SeedSequence(self.config.seed).spawn(3)
        fits = fold(self.train, self.config, search)
        sets = fits if self.holdout is None else [*fits, self.holdout]
        rows = sum(rows for rows, _ in self.shapes().values())
        try:
            crew = open_crew(self.config, self.solver, self.stop, self.skeleton.device)
            with self._kept(writer.waiting) as keep, crew as workers:
                between, arguments, probes = self._begin(sets, keep)
                pruning = BlockPruning(
                    config=self.config,
                    solver=self.solver,
                    stop=self.stop,
                    seed=search,
                    first_seed=first,
                    share=rows_share(self.config, rows),
                    experts=tuple(f"{at}." for at in self.skeleton.fused),
                    samples=tuple(data.n for data in fits),
                    floor=self.floor,
                    steps=self.steps,
                    crew=workers,
                    progress=self._on_block,
                )
                for number in range(len(self.skeleton.blocks)):
                    for activations, rest in zip(between, arguments, strict=True):
                        own = [each[number] for each in rest]
                        activations.dense = readdressed(activations.dense, own)
                        if activations.pruned:
                            activations.pruned = readdressed(activations.pruned, own)
                    writer.block(number, self._block(number, pruning, between))
                    self._compare(number, between, probes)
                if workers is not None and workers.repeated:
                    self.notes.append(repeated_note(workers))
        except KeyboardInterrupt as e:
            raise RunInterruptedError(f"interrupted after {len(self._rows)} layers") from e
        return self._report(time.perf_counter() - began)

    @contextmanager
    def _kept(self, place: Path) -> Iterator[Keep]:
        if self.activations == "memory":
            yield list
            return
        with tempfile.TemporaryDirectory(dir=place) as folder:
            yield DiskKeep(Path(folder))

    def _begin(
        self, sets: Sequence[CalibrationSet], keep: Keep
    ) -> tuple[list[Activations], list[list[tuple[Call, ...]]], list[Tensor]]:
        """What the first block is called with, of every set; the arguments of all blocks, chunk by
        chunk; and probes of what dense blocks hand on for the first chunk in the whole model."""
        chunk = self.config.curvature.chunk
        both = self.config.curvature.inputs == "pruned"
        between, arguments = [], []
        outside = self.skeleton.outside()
        with self.skeleton.loaded(outside):
            self._check_weights("outside of the blocks", outside)
            first = next(iter(sets[0].batches(chunk)))
            probes, tuple_out = real_outputs(self.skeleton, first.inputs)
            for data in sets:
                shares: list[float] = []
                calls: list[FirstCalls] = []
                for batch in data.batches(chunk):
                    shares.append(batch.n / data.n)
                    found = first_calls(self.skeleton, batch.inputs, tuple_out)
                    calls.append(found.shared_with(calls[-1]) if calls else found)
                held = keep(found.first for found in calls)
                between.append(
                    Activations(
                        shares,
                        held,
                        held if both else (),
                        keep=keep,
                        recompute=self.activations == "disk",
                    )
                )
                arguments.append([found.rest for found in calls])  # the tensors are in `held`
        return between, arguments, probes

    def _block(
        self, number: int, pruning: BlockPruning, between: Sequence[Activations]
    ) -> Mapping[str, Tensor]:
        """Decide a block and go on; parameter name -> pruned weights."""
        name, skeleton = self.skeleton.blocks[number], self.skeleton
        inside = skeleton.inside(name)
        with skeleton.loaded(inside):
            self._check_weights(name, inside)
            self._check_experts(name)
            if not self.names[name]:
                pass_through(name, skeleton.block(name), between)
                return {}
            done = pruning.run(
                name,
                skeleton.block(name),
                self.names[name],
                between,
                self._decided,
                self._stored(name),
            )
        self._take(done)
        return done.weights

    def _check_weights(self, name: str, inside: Sequence[str]) -> None:
        """Raise `RunMismatchError` if the steps that are there are of other weights.

        ``inside``: parameters and buffers that are loaded.
        """
        digest = hashlib.sha256()
        for n in inside:
            value = self.skeleton.tensor(n)
            stored = self.skeleton.checkpoint.tensors[self.skeleton.places[n].tensor]
            digest.update(f"{n} {stored.dtype} {hash_tensor(value.detach())} ".encode())
        key, found = f"weights/{name}", {"sha256": digest.hexdigest()}
        then = self.steps.get(key)
        if then is None:
            self.steps.put(key, {}, found)
        elif then.record != found:
            raise RunMismatchError(
                f"the weights ('{name}') are not those that the steps there were made from; give "
                "the model as it was, or another folder"
            )

    def _check_experts(self, name: str) -> None:
        """Of the first block that has any: that they do what the model's own do."""
        at = next(iter(self.skeleton.fused), "")
        if at.startswith(f"{name}."):
            experts = self.skeleton.model.get_submodule(at)
            assert isinstance(experts, LinearExperts)
            require_equal(at, self.skeleton.fused[at], experts)

    def _stored(self, block: str) -> torch.dtype | None:
        """Type of the weights of a block's layers, where it is shorter than float32."""
        places = [self.skeleton.places[f"{n}.weight"] for n in self.names[block]]
        kinds = {self.skeleton.checkpoint.tensors[place.tensor].dtype for place in places}
        if len(kinds) > 1:
            raise ModelDirectoryError(
                f"the layers of '{block}' are stored in several types: {sorted(map(str, kinds))}"
            )
        kind = next(iter(kinds), None)
        return None if kind in (torch.float32, torch.float64) else kind

    def _compare(
        self, number: int, between: Sequence[Activations], probes: Sequence[Tensor]
    ) -> None:
        """Raise `ModelDirectoryError` if the dense block gave something else than in the model."""
        got, want = probe(between[0].dense[0].x), probes[number]
        scale = float(want.abs().max())
        if not torch.allclose(got, want, rtol=1e-3, atol=1e-4 * scale):
            off = float((got - want).abs().max())
            raise ModelDirectoryError(
                f"'{self.skeleton.blocks[number]}' gives other outputs when it is run alone (off "
                f"by {off:.3g} of {scale:.3g}): it needs more than the block before it hands on"
            )

    def _take(self, done: PrunedBlock) -> None:
        """Into the report."""
        result, errors = done.result, {row.layer: row for row in done.result.layers}
        for layer in done.layers:
            mask, row = result.masks[layer.parameter], errors.get(layer.name)
            self.masks.add(layer, mask)
            self._rows.append(
                LayerReport(
                    name=layer.name,
                    parameter=layer.parameter,
                    shape=layer.shape,
                    kept=int(mask.sum()),
                    total=layer.numel,
                    **({} if row is None else row.reported()),
                )
            )
            if row is not None and row.note is not None:
                self.notes.append(row.note)
        for unseen in done.unseen:
            self.notes.append(
                f"layer '{unseen.layer}' saw {unseen.tokens} tokens, fewer than {self.floor}: "
                "its largest weights stay, and are not re-fitted"
            )
        self._decided += len(result.layers)
        self._windows += result.windows

    def _on_block(self, block: RowBlockRecord) -> None:
        """A block of rows was decided: one step of the history."""
        record = StepRecord.of_block(block, len(self.history), 1.0 - self.config.prune.sparsity)
        self.history.append(record)
        if self.callback is not None:
            self.callback(record)

    def _report(self, seconds: float) -> RunReport:
        kept, total = (sum(getattr(row, x) for row in self._rows) for x in ("kept", "total"))
        return RunReport(
            objective="reconstruction",
            solver=self.solver.name,
            density=kept / total,
            layers=tuple(self._rows),
            loss_dense=None,
            loss_initial=None,
            loss_masked=None,
            loss_final=None,
            steps=len(self.history),
            accepted=sum(r.accepted for r in self.history),
            samples=self.train.n,
            holdout_samples=0 if self.holdout is None else self.holdout.n,
            seconds=seconds,
            seed=self.config.seed,
            notes=tuple(self.notes),
            windows=tuple(self._windows),
        )


def _lengths(data: CalibrationSet) -> list[int]:
    """Tokens of each sample."""
    return [int(tree_leaves(batch.inputs)[0].shape[1]) for batch in data.batches(1)]


def _require_tokens(data: CalibrationSet, model: nn.Module) -> None:
    """Raise `CalibrationError` for what a language model cannot be run on."""
    table: Any = model
    known = int(table.get_input_embeddings().num_embeddings)
    most = position_limit(table.config.to_dict())
    for i, batch in enumerate(data.batches(4096)):
        inputs = batch.inputs
        if isinstance(inputs, Mapping) and "input_ids" not in inputs:
            raise CalibrationError(f"batch {i} has {sorted(inputs)}, and no input_ids")
        ids = inputs["input_ids"] if isinstance(inputs, Mapping) else tree_leaves(inputs)[0]
        if ids.ndim != 2 or ids.dtype not in (torch.int32, torch.int64) or not ids.shape[1]:
            raise CalibrationError(
                f"a language model is calibrated with token ids of shape (samples, tokens), got "
                f"{ids.dtype} of {tuple(ids.shape)}"
            )
        low, high = int(ids.min()), int(ids.max())
        if low < 0 or high >= known:
            raise CalibrationError(
                f"batch {i} holds tokens from {low} to {high}; the model knows 0 to {known - 1}"
            )
        if most is not None and ids.shape[1] > most:
            raise CalibrationError(
                f"batch {i} has samples of {ids.shape[1]} tokens; the model takes {most} at most"
            )
