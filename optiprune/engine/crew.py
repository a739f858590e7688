"""The workers that decide layers side by side: asked for, tried, and handed layers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch

from optiprune.config import Config, ConfigError
from optiprune.curvature.gram import LayerGram
from optiprune.executors import Executor, Shared, Task, open_executor, require_executor
from optiprune.executors.worker import packed
from optiprune.solvers import Solver, Stop

from .layer_job import (
    LayerJob,
    LayerOutcome,
    PackedGram,
    decide_layer,
    require_alike,
    traits,
)

__all__ = ["Crew", "StageTasks", "open_crew", "repeated_note", "require_crew", "works_on"]


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that were tried.

    Attributes
    ----------
    threads : of torch and BLAS in a task
    on : 'cpu' or 'cuda'
    expected : `traits` of this process
    """

    executor: Executor
    threads: int
    on: str
    expected: Mapping[str, str]

    @property
    def repeated(self) -> list[str]:
        """Names of the layers that were begun again, once for each time."""
        return self.executor.repeated

    def decide(self, tasks: Iterable[Task]) -> Iterator[LayerOutcome]:
        """Outcomes in the order of the tasks, see `Executor.run`."""
        return self.executor.run(tasks)


@dataclass(slots=True)
class StageTasks:
    """Tasks of the layers of one stage; layers that share a Gram matrix share what is sent."""

    crew: Crew
    _shared: dict[int, Shared] = field(default_factory=dict)

    def task(self, job: LayerJob, grams: Sequence[LayerGram]) -> Task:
        """The stage must hold ``grams`` until its last task is made."""
        for gram in grams:
            if id(gram) not in self._shared:
                self._shared[id(gram)] = Shared(PackedGram.of(gram))
        return Task(
            name=f"layer '{job.layer.name}'",
            function=decide_layer,
            args=(job.sent(), self.crew.expected, self.crew.threads, self.crew.on),
            shared=tuple(self._shared[id(gram)] for gram in grams),
        )


def works_on(config: Config, device: torch.device) -> str:
    """Kind of device that layers are decided on, the model being on ``device``."""
    if config.executor.kind == "local":
        return device.type
    return "cuda" if config.executor.gpus else "cpu"


def require_crew(config: Config, solver: Solver, stop: Stop | None, device: torch.device) -> None:
    """Find out what can be found out before workers are begun.

    Raises
    ------
    ConfigError
        The model is on a device that the workers do not use.
    ExecutorError
        A package is not installed; the solver cannot be sent to another process.
    """
    options = config.executor
    if options.kind == "local":
        return
    if works_on(config, device) == "cpu" and device.type != "cpu":
        raise ConfigError(
            f"the model is on '{device}', and executor = '{options.kind}' decides layers on the "
            "CPU, to other last bits; move the model to the CPU, use executor = 'local', or 'ray' "
            "with executor.gpus"
        )
    require_executor(options)
    packed(Task(f"solver '{solver.name}'", _meet, (solver, stop)))


@contextmanager
def open_crew(
    config: Config, solver: Solver, stop: Stop | None, device: torch.device
) -> Iterator[Crew | None]:
    """Workers that can decide layers as this process would; None where it does so itself.

    Each process of the pool, or each node of the cluster, is tried before work starts.

    Raises
    ------
    ExecutorError
        They cannot be had, or cannot import what they need (a solver of the user's).
    WorkerMismatchError
        They would decide otherwise.
    """
    if config.executor.kind == "local":
        yield None
        return
    threads, on = torch.get_num_threads(), works_on(config, device)
    with open_executor(config.executor, config.workers, threads) as executor:
        crew = Crew(executor, threads, on, traits(threads, on))
        executor.everywhere(
            Task("the first look at a worker", _meet, (solver, stop, crew.expected, threads, on))
        )
        yield crew


def repeated_note(crew: Crew) -> str:
    """What the report of a run says of workers that were lost."""
    return f"begun again, since their workers were lost: {', '.join(crew.repeated)}"


def _meet(
    solver: Solver, stop: Stop | None, expected: Mapping[str, str], threads: int, on: str
) -> None:
    """Done by every worker first; the solver and its limits were sent, that is their test."""
    require_alike(expected, threads, on)
