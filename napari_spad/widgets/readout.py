"""Where the mouse is: true millimetres, voxel and value, in two lines that stay where they are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt
from qtpy.QtGui import QFontDatabase
from qtpy.QtWidgets import QLabel, QWidget

from napari_spad.cursor import place_under
from napari_spad.widgets.forms import column
from napari_spad.widgets.notices import follow, notices

if TYPE_CHECKING:
    from napari import Viewer

    from spad.volumes.volume import Volume

_IDLE = "Move the mouse over a slice."
_TIP = (
    "The voxel under the mouse: millimetres to the patient's right (R), anterior (A) and superior "
    "(S) by the scan's own affine, also where it is tilted; its index in the file (i, j, k); its "
    "value."
)


class Readout(QWidget):
    """Follows the mouse over the slices of one scan."""

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._layer: Any = None
        self._volume: Volume | None = None
        self.place = QLabel(_IDLE)
        self.voxel = QLabel(" ")
        font = QFontDatabase.systemFont(QFontDatabase.SystemFont.FixedFont)
        for label in (self.place, self.voxel):
            label.setFont(font)
            label.setTextFormat(Qt.TextFormat.PlainText)
            label.setMinimumWidth(1)
        self.place.setStyleSheet("QLabel { font-weight: bold; }")
        self.setToolTip(_TIP)
        layout = column(self, bare=True)
        layout.setSpacing(1)
        layout.addWidget(self.place)
        layout.addWidget(self.voxel)
        follow(self, viewer.cursor.events.position, self._follow)
        follow(self, viewer.dims.events.point, self._follow)
        follow(self, viewer.dims.events.ndisplay, self._follow)
        follow(self, viewer.events.mouse_over_canvas, self._follow)
        follow(self, notices.pointed, self._follow_elsewhere)

    def show_scan(self, layer: Any, volume: Volume | None) -> None:
        """Follow the mouse over a scan; None follows nothing."""
        self._layer, self._volume = layer, volume
        self._follow()

    def _follow(self, event: Any = None) -> None:
        dims = self._viewer.dims
        place = None
        if self._volume is not None and dims.ndisplay == 2 and self._viewer.mouse_over_canvas:
            position = list(self._viewer.cursor.position)
            if len(position) == dims.ndim:
                for axis in dims.not_displayed:
                    position[axis] = dims.point[axis]
                place = place_under(self._layer, self._volume, position, dims.displayed)
        self._write(place)

    def _follow_elsewhere(self, pointed: Any) -> None:
        """Follow the mouse over a view whose slices are not the main viewer's."""
        viewer, position = pointed
        place = None
        if self._volume is not None and viewer is getattr(
            self._viewer, "__wrapped__", self._viewer
        ):
            if position is not None:
                place = place_under(self._layer, self._volume, position)
            self._write(place)

    def _write(self, place: Any) -> None:
        self.place.setText(_IDLE if place is None else place.mm_words)
        self.voxel.setText(" " if place is None else place.voxel_words)
