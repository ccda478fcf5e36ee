"""What all docks share: their end."""

from __future__ import annotations

from qtpy.QtCore import QEvent
from qtpy.QtWidgets import QWidget


class Dock(QWidget):
    """The widget of a dock, deleted once napari has closed the dock.

    All that napari does is to take it out of the window, which tells it in no other way. What it
    listens to would keep it at work for as long as Python runs.
    """

    _is_closed = False

    @property
    def working(self) -> bool:
        """Whether a person still waits for something that it does."""
        return False

    def closed(self) -> None:
        """Let go of the viewer: napari has closed the dock."""

    def end_if_closed(self) -> None:
        """Be deleted, unless a person sees the dock or waits for something that it does."""
        if self._is_closed and not self.working:
            self.deleteLater()

    def event(self, event: QEvent | None) -> bool:
        """Notice that napari closes the dock."""
        moved = event is not None and event.type() == QEvent.Type.ParentChange
        if moved and self.parentWidget() is None:
            self._is_closed = True
            self.closed()
            self.end_if_closed()
        return super().event(event)
