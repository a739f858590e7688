"""The report of one run or of several, in no form yet."""

from __future__ import annotations

from collections.abc import Sequence

from optiprune import __version__

from .document import Document, Part, Section
from .run_data import RunData
from .sections.comparison import comparison_sections
from .sections.layers import density_section, error_section
from .sections.mask_section import mask_section
from .sections.passes import allocation_section, tuning_section, window_section
from .sections.solver_paths import paths_section
from .sections.solving import solver_section
from .sections.steps import energy_section, promise_section
from .sections.summary import summary_section

__all__ = ["make_document"]


def make_document(runs: Sequence[RunData]) -> Document:
    """A part for every run, after their comparison where there are several.

    Masks are read here, one at a time.
    """
    parts = [_part(run, f"run-{i}") for i, run in enumerate(runs, 1)]
    if len(runs) == 1:
        return Document(f"Report of {runs[0].name}", __version__, tuple(parts))
    compared = Part("compare", "Comparison", "", (), comparison_sections(runs))
    title = f"Comparison of {', '.join(run.name for run in runs)}"
    return Document(title, __version__, (compared, *parts))


def _part(run: RunData, key: str) -> Part:
    run, masks = mask_section(run, f"{key}-masks")
    sections: list[Section | None] = [
        summary_section(run, f"{key}-summary"),
        density_section(run, f"{key}-density"),
        error_section(run, f"{key}-errors"),
        promise_section(run, f"{key}-promises"),
        energy_section(run, f"{key}-energies"),
        paths_section(run, f"{key}-paths"),
        solver_section(run, f"{key}-solvers"),
        allocation_section(run, f"{key}-allocation"),
        window_section(run, f"{key}-windows"),
        tuning_section(run, f"{key}-tuning"),
        masks,
    ]
    there = tuple(s for s in sections if s is not None)
    return Part(key, run.name, run.state, tuple(_warnings(run)), there)


def _warnings(run: RunData) -> list[str]:
    out = []
    if run.state == "stopped":
        out.append(
            f"This run did not come to its end: {run.failed}. What it had reached was written, and "
            f"is what this report shows; `optiprune resume {run.folder}` goes on with it if its "
            "steps are still there."
        )
    if run.state == "unfinished":
        out.append(
            "This run has not ended: it is at work, or was killed. The report shows the steps that "
            f"are on disk. If it was killed, `optiprune resume {run.folder}` goes on with it."
        )
    return [*out, *run.faults]
