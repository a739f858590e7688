"""Ctrl-C that waits for the end of a step."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import typer

__all__ = ["stop_between_steps"]


@contextmanager
def stop_between_steps() -> Iterator[Callable[[], bool]]:
    """Whether Ctrl-C was pressed; pressed again, it is a KeyboardInterrupt at once.

    Outside of the main thread, and where Ctrl-C is ignored, nothing is changed.
    """
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        typer.echo(
            "stopping when this step is done; Ctrl-C again stops now, and loses it", err=True
        )

    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    if before is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)
