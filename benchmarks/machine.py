"""What a measurement ran on: written beside every result."""

from optiprune.bench.machine import describe

__all__ = ["describe", "machine_line"]


def machine_line() -> str:
    """One paragraph of Markdown."""
    return "; ".join(f"{k}: {v}" for k, v in describe().items()) + ".\n"
