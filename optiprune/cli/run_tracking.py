"""The trackers that a run file asks for in ``output.log``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from .pretrained_config import PretrainedRunConfig
from .run_config import RunConfig
from .toml_text import toml_text

if TYPE_CHECKING:
    from optiprune.tracking import Tracking

__all__ = ["check_trackers", "run_tracking", "tell_end"]


def check_trackers(run: RunConfig | PretrainedRunConfig) -> None:
    """Raise `TrackingError` for one that is not installed."""
    if run.output.log:
        from optiprune.tracking import require_installed

        require_installed(run.output.log)


def run_tracking(run: RunConfig | PretrainedRunConfig, folder: Path, *, resumed: bool) -> Tracking:
    """Those of a run that begins, or goes on, in ``folder``. Raises `TrackingError`."""
    from optiprune.tracking import Tracking

    table = run.model_dump(mode="json")
    return Tracking.start(
        run.output.log,
        folder,
        table,
        toml_text(table),
        lambda text: typer.echo(f"note: {text}", err=True),
        resumed=resumed,
    )


def tell_end(
    tracking: Tracking, summary: dict[str, Any], after: dict[str, float] | None, folder: Path
) -> None:
    """The end of a run, with the files that lie in ``folder`` by now."""
    from optiprune.config.run_files import CONFIG, SUMMARY
    from optiprune.tracking import Outcome

    files = tuple(path for path in (folder / CONFIG, folder / SUMMARY) if path.exists())
    dense, failed = summary["dense"] or {}, summary["failed"] or ""
    tracking.end(Outcome(summary["report"], dense, after or {}, failed, files))
