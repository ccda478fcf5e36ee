"""What docks hear: events of napari's and of each other, for as long as they live."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from psygnal import Signal
from qtpy.QtWidgets import QWidget


class _Notices:
    """What docks tell each other."""

    scan_changed = Signal(str)
    models_changed = Signal()
    pointed = Signal(object)
    """(viewer, place): where the mouse is in the viewer's world, in another view than its own;
    the place is None once the mouse has left."""


notices = _Notices()


def follow(
    widget: QWidget, emitter: Any, call: Callable[[Any], None], *, first: bool = False
) -> Callable[[], None]:
    """Connect an event of napari's, or a notice, to a widget for as long as the widget lives.

    Args:
        widget: whose death ends the connection (Python may keep a closed dock's shell).
        emitter: an event or a notice.
        call: called with the event.
        first: whether it is to hear an event of napari's before those that listen already.

    Returns:
        What ends the connection earlier.
    """

    def heard(event: Any = None) -> None:
        call(event)

    def end() -> None:
        with suppress(ValueError, RuntimeError, KeyError):
            emitter.disconnect(heard)

    if first:
        emitter.connect(heard, position="first")
    else:
        emitter.connect(heard)
    widget.destroyed.connect(end)
    return end
