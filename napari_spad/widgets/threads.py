"""Work off the main thread, for docks: an answer, or one sentence, comes back to the main one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from spad.errors import SpadError

_log = logging.getLogger(__name__)


@dataclass
class Turns:
    """Numbers pieces of work, so that what comes too late, even for a dead dock, is dropped."""

    now: int = 0

    def next(self) -> int:
        """Begin a new turn; what belongs to an earlier one is late."""
        self.now += 1
        return self.now


def run(
    what: Callable[[], Any], done: Callable[[Any], None], refused: Callable[[str], None]
) -> None:
    """Do something in a thread of napari's.

    Args:
        what: the work; it must not touch layers or widgets.
        done: called on the main thread with what the work returns.
        refused: called on the main thread with the sentence of a `SpadError`, or one about any
            other error, which is a fault of ours (and is logged).
    """
    from napari.qt.threading import create_worker

    def answer(found: tuple[Any, Exception | None]) -> None:
        value, error = found
        if error is None:
            done(value)
        elif isinstance(error, SpadError):
            refused(str(error))
        else:
            _log.error("a thread of a dock failed", exc_info=error)
            refused(
                f"This did not work because of a fault in napari-spad ({type(error).__name__}: "
                f"{error}); please report it."
            )

    create_worker(_caught, what, _connect={"returned": answer}, _ignore_errors=True)


def _caught(what: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """Give errors back beside the answer: what a worker raises reaches nobody in napari 0.9."""
    try:
        return what(), None
    except Exception as error:
        return None, error
