"""The errors that a person gets to read: one sentence that says what to do about it."""

from __future__ import annotations


class SpadError(RuntimeError):
    """A refusal that a person can act on.

    The message is one sentence: what was found, what was expected, what to do. It derives from
    `RuntimeError` and never from `ValueError`, because napari turns a writer's `ValueError` into
    "no plugin found".
    """


class Cancelled(SpadError):
    """Raised from inside a progress callback to stop work that is under way."""

    def __init__(self, message: str = "The work was cancelled before it was done.") -> None:
        super().__init__(message)
