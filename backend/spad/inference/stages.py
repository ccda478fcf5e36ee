"""How long each stage of a job took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from spad.progress import Progress

T = TypeVar("T")

STAGES = ("load", "prepare", "model", "finish")
"""Reading the model; scan to model input; the model itself; back to the source grid and figures."""


class Stages:
    """Seconds by stage; the clock starts when it is made."""

    def __init__(self) -> None:
        self._start = time.perf_counter()
        self._seconds = dict.fromkeys(STAGES, 0.0)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of a block to a stage."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._seconds[name] += time.perf_counter() - start

    def next(self, name: str, items: Iterator[T]) -> T | None:
        """Give the next of some items, None behind the last; its time is added to a stage."""
        with self.stage(name):
            return next(items, None)

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds by stage, and `total` since the start."""
        return {**self._seconds, "total": time.perf_counter() - self._start}


def share(progress: Progress, start: float, stop: float) -> Progress:
    """Give the progress callback for a part of a job, whose own fractions run from 0 to 1."""

    def report(fraction: float, text: str) -> None:
        progress(start + (stop - start) * fraction, text)

    return report
