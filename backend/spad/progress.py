"""Progress of long work: one callback type that the library, the worker and the screens share."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[float, str], None]
"""Called with the fraction that is done (0 to 1) and a short text; may raise `Cancelled`."""


def silent(fraction: float, text: str) -> None:
    """Take note of nothing: the progress callback of callers that do not ask for one."""
