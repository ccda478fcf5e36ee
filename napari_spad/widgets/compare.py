"""Comparing a scan with what a model makes of it: side by side, or faded into each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QCheckBox, QLabel, QSlider, QWidget

from napari_spad.widgets.forms import column, row
from napari_spad.widgets.notices import follow

if TYPE_CHECKING:
    from napari import Viewer


class Compare(QWidget):
    """A switch for napari's grid, and a slider that fades from the scan to the result.

    Args:
        viewer: the viewer.
        result: what the result is called.
    """

    def __init__(self, viewer: Viewer, result: str) -> None:
        super().__init__()
        self._viewer = viewer
        self._front: Any = None
        self._fields: list[Any] = []
        self._overlay: list[Any] = []
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setToolTip("Show the scan and the results in fields of their own")
        self.side_by_side.toggled.connect(self._arrange)
        self.fade = QSlider(Qt.Orientation.Horizontal)
        self.fade.setRange(0, 100)
        self.fade.setValue(100)
        self.fade.setToolTip(f"Fade from the scan to what was {result}")
        self.fade.valueChanged.connect(self._fade)
        layout = column(self, bare=True)
        layout.addWidget(self.side_by_side)
        fader = row(QLabel("scan"), self.fade, QLabel(result))
        fader.setStretch(1, 1)
        layout.addLayout(fader)
        self.setEnabled(False)
        follow(self, viewer.canvas.grid.events.enabled, self._grid_switched)

    def compare(
        self,
        front: Any,
        *,
        fields: Sequence[Any],
        overlay: Sequence[Any],
        side_by_side: bool = False,
    ) -> None:
        """Compare a layer with the scan below it; layers that are in the way are hidden.

        Args:
            front: the layer that fades.
            fields: the layers to see side by side.
            overlay: the layers to see on top of each other.
            side_by_side: whether to switch to that, else it stays as it is.
        """
        self._front, self._fields, self._overlay = front, list(fields), list(overlay)
        self.setEnabled(True)
        on = side_by_side or self.side_by_side.isChecked()
        self._check(on)
        self._arrange(on)

    def _arrange(self, on: bool) -> None:
        shown = self._fields if on else self._overlay
        for layer in self._viewer.layers:
            layer.visible = layer in shown
        grid = self._viewer.canvas.grid
        grid.stride = 1
        grid.enabled = on
        self.fade.setEnabled(not on)
        self._front.opacity = 1.0 if on else self.fade.value() / 100
        self._viewer.reset_view()

    def _grid_switched(self, event: Any = None) -> None:
        """Another dock or napari's own button has switched the grid."""
        on = bool(self._viewer.canvas.grid.enabled)
        if self._front is not None:
            self._check(on)
            self.fade.setEnabled(not on)

    def _check(self, on: bool) -> None:
        self.side_by_side.blockSignals(True)
        self.side_by_side.setChecked(on)
        self.side_by_side.blockSignals(False)

    def _fade(self, value: int) -> None:
        if self._front is not None and not self.side_by_side.isChecked():
            self._front.opacity = value / 100
