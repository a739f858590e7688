"""What a measurement ran on: written beside every result."""

from optiprune.bench.machine import describe

__all__ = ["describe"]
