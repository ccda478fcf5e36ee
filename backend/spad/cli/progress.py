"""Progress on standard error: a bar on a terminal, plain lines in a log."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from spad.progress import Progress

STEP = 0.1
SECONDS = 1.0


@contextmanager
def progress_of(title: str) -> Iterator[Progress]:
    """Give a progress callback for one piece of work.

    Args:
        title: what is being done, put before each line or the bar.
    """
    if not sys.stderr.isatty():
        yield _Lines(title)
        return
    from rich.console import Console
    from rich.progress import Progress as Bar

    with Bar(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=1.0)

        def show(fraction: float, text: str) -> None:
            bar.update(task, completed=fraction, description=f"{title}: {text}")

        yield show


class _Lines:
    """A line at the start, then for each tenth that is done and for new texts, one a second."""

    def __init__(self, title: str) -> None:
        self.title = title
        self.fraction, self.text, self.time = -1.0, "", 0.0

    def __call__(self, fraction: float, text: str) -> None:
        now = time.monotonic()
        news = text != self.text and now - self.time >= SECONDS
        if fraction - self.fraction < STEP and not news:
            return
        self.fraction, self.text, self.time = fraction, text, now
        print(f"{self.title}: {fraction:4.0%} {text}", file=sys.stderr, flush=True)
