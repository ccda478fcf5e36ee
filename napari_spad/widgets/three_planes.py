"""The *Three planes* dock: axial, coronal and sagittal views in true mm, with one cross."""

from __future__ import annotations

import weakref
from typing import TYPE_CHECKING, Any

from napari.qt import QtViewer
from qtpy.QtCore import QSize, QTimer
from qtpy.QtWidgets import (
    QApplication,
    QCheckBox,
    QGridLayout,
    QPushButton,
    QSizePolicy,
    QVBoxLayout,
)

from napari_spad.planes import Planes
from napari_spad.view import PLANES
from napari_spad.widgets.dock import Dock
from napari_spad.widgets.forms import row, share_height
from napari_spad.widgets.plane_view import PlaneView, make_current

if TYPE_CHECKING:
    from napari import Viewer
    from qtpy.QtGui import QResizeEvent, QShowEvent

_LAYOUTS = {
    "column": {"Axial": (0, 0), "Coronal": (1, 0), "Sagittal": (2, 0)},
    "row": {"Axial": (0, 0), "Coronal": (0, 1), "Sagittal": (0, 2)},
    "square": {"Axial": (0, 0), "Coronal": (1, 0), "Sagittal": (1, 1)},
}
"""Row and column of each plane; in the square, neighbours share an axis."""

_STRETCH = 1000


class ThreePlanesDock(Dock):
    """Three planes through one place, in step with the main viewer."""

    def __init__(self, napari_viewer: Viewer) -> None:
        super().__init__()
        # The layers behind napari's proxy: the copies share their data and their history.
        self._viewer: Any = getattr(napari_viewer, "__wrapped__", napari_viewer)
        self._timer = QTimer(self)
        self._timer.setSingleShot(True)
        self._timer.timeout.connect(self._catch_up)
        self._is_fitted, self._is_shut, self._has_room = True, False, False
        self._enlarged: str | None = None
        self._shown: Any = None
        self._viewer.layers.events.removing.connect(self._about_to_remove)
        self._lay_out()
        self._open_views()
        me = weakref.ref(self)
        self.destroyed.connect(lambda: _forget(me()))

    def sizeHint(self) -> QSize:
        return QSize(380, 860)

    def _lay_out(self) -> None:
        self.fit_button = QPushButton("Fit")
        self.fit_button.setToolTip("Show all of the scan in each plane")
        self.fit_button.clicked.connect(self.fit)
        self.same_zoom = QCheckBox("Same zoom")
        self.same_zoom.setToolTip("A mm is as long in each plane")
        self.same_zoom.setChecked(True)
        self.same_zoom.toggled.connect(self.fit)
        self.show_cross = QCheckBox("Cross")
        self.show_cross.setToolTip("Show where the other two planes lie")
        self.show_cross.setChecked(True)
        self.show_cross.toggled.connect(self._switch_cross)
        self._grid = QGridLayout()
        self._grid.setSpacing(2)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(2, 2, 2, 2)
        layout.setSpacing(3)
        layout.addLayout(self._grid, 1)
        tools = row(self.fit_button, self.same_zoom, self.show_cross)
        tools.addStretch(1)
        layout.addLayout(tools)
        self.setSizePolicy(QSizePolicy.Policy.Expanding, QSizePolicy.Policy.Expanding)
        self.setMinimumWidth(220)

    def _open_views(self) -> None:
        self.planes = Planes(self._viewer, self._wake)
        self.views = {plane: PlaneView(self.planes, plane) for plane in PLANES}
        for view in self.views.values():
            self._grid.addWidget(view)
            view.marks.shows_cross = self.show_cross.isChecked()
            view.enlarge.connect(self._switch_enlarged)
            view.moved_by_hand.connect(self._unfit)
            view.zoomed.connect(self._zoomed)
        self._shown = None

    def _shut_views(self) -> None:
        self.planes.close()
        for view in self.views.values():
            view.shut()
            self._grid.removeWidget(view)
            view.hide()
            view.deleteLater()

    def fit(self) -> None:
        """Show all of the scan in each plane, in the layout with the largest pictures."""
        self._is_fitted = True
        self._arrange()
        self.planes.fit(same_zoom=self.same_zoom.isChecked())
        self._redraw_marks()

    def shut(self) -> None:
        """Let go of the viewer and close the canvases."""
        if self._is_shut:
            return
        self._is_shut = True
        self._timer.stop()
        self._viewer.layers.events.removing.disconnect(self._about_to_remove)
        self._shut_views()
        self.views = {}

    def closed(self) -> None:
        self.shut()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        self._wake(0)

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        if any(view.is_lost for view in self.views.values()):
            for view in self.views.values():
                view.fall_silent()
            self._shut_views()
            self._open_views()
        for view in self.views.values():
            view.settle()
        self._wake(0)

    def _wake(self, milliseconds: int) -> None:
        if self._is_shut:
            return
        if not self._timer.isActive() or self._timer.remainingTime() > milliseconds:
            self._timer.start(milliseconds)

    def _catch_up(self) -> None:
        if not self.isVisible():
            return
        if not self._has_room:
            self._has_room = True
            share_height(self)
        before, self._shown = self._shown, None
        self.planes.catch_up()
        self._shown = self._state()
        if self._is_fitted and before != self._shown:
            self.fit()
        for view in self.views.values():
            if self.planes.ready:
                view.bring_into_sight()
        self._redraw_marks()

    def _state(self) -> Any:
        """Give what the fitting depends on."""
        sizes = [(view.native.width(), view.native.height()) for view in self.views.values()]
        return sizes, tuple(self.planes.extent), self.planes.ready

    def _arrange(self) -> None:
        """Choose the layout in which the pictures are largest, and share out its room."""
        down, depth, across = self.planes.extent
        sizes = {"Axial": (depth, across), "Coronal": (down, across), "Sagittal": (down, depth)}
        shown = [self._enlarged] if self._enlarged else list(PLANES)
        best = max(_LAYOUTS, key=lambda name: self._zoom_in(name, sizes))
        for plane, view in self.views.items():
            self._grid.removeWidget(view)
            self._grid.addWidget(view, *_LAYOUTS[best][plane])
            view.setVisible(plane in shown)
        for line in range(3):
            used = [p for p in shown if _LAYOUTS[best][p][0] == line]
            height = max((sizes[p][0] for p in used), default=0)
            self._grid.setRowStretch(line, round(_STRETCH * height / max(down, depth)))
            used = [p for p in shown if _LAYOUTS[best][p][1] == line]
            width = max((sizes[p][1] for p in used), default=0)
            self._grid.setColumnStretch(line, round(_STRETCH * width / max(depth, across)))
        self._grid.activate()

    def _zoom_in(self, layout: str, sizes: dict[str, tuple[float, float]]) -> float:
        """Work out how large a mm would be."""
        heights, widths = [0.0] * 3, [0.0] * 3
        for plane, (line, column) in _LAYOUTS[layout].items():
            heights[line] = max(heights[line], sizes[plane][0])
            widths[column] = max(widths[column], sizes[plane][1])
        return min(self.height() / sum(heights), self.width() / sum(widths))

    def _about_to_remove(self, event: Any) -> None:
        for window in QApplication.topLevelWidgets():
            for canvas in window.findChildren(QtViewer):
                if canvas.viewer is self._viewer:
                    make_current(canvas)

    def _switch_enlarged(self) -> None:
        plane = self.sender().plane  # type: ignore[union-attr]
        self._enlarged = None if self._enlarged else plane
        self.fit()

    def _switch_cross(self, on: bool) -> None:
        for view in self.views.values():
            view.marks.shows_cross = on
        self._redraw_marks()

    def _unfit(self) -> None:
        self._is_fitted = False

    def _zoomed(self, zoom: float) -> None:
        if self.same_zoom.isChecked():
            self.planes.zoom(zoom)

    def _redraw_marks(self) -> None:
        for view in self.views.values():
            view.marks.update()


def _forget(dock: ThreePlanesDock | None) -> None:
    """Let go of the viewer when Qt has destroyed a dock with the window that it was in."""
    if dock is not None and not dock._is_shut:
        dock._is_shut = True
        dock._viewer.layers.events.removing.disconnect(dock._about_to_remove)
        dock.planes.let_go()
        dock.views = {}
