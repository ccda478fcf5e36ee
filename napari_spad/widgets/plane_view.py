"""One plane of the *Three planes* dock: its canvas, its cross and letters, and the mouse."""

from __future__ import annotations

import weakref
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.qt import QtViewer
from napari.utils.interactions import (
    mouse_move_callbacks,
    mouse_press_callbacks,
    mouse_release_callbacks,
)
from qtpy.QtCore import QEvent, QObject, QPointF, QRectF, QSize, Qt, Signal
from qtpy.QtGui import QColor, QFont, QPainter, QPainterPath, QPen
from qtpy.QtWidgets import QSizePolicy, QVBoxLayout, QWidget

from napari_spad.click_mouse import ClickMouse, clicking
from napari_spad.planes import Planes, shown_axes
from napari_spad.view import PLANES
from napari_spad.widgets.notices import notices

if TYPE_CHECKING:
    from qtpy.QtGui import QKeyEvent, QMouseEvent, QPaintEvent, QWheelEvent

COLORS = {"Axial": "#ff6b6b", "Coronal": "#6bd968", "Sagittal": "#ffd447"}
"""Of a plane's name, and of the line that it is where it crosses the other planes."""

_GAP = 9.0
_EDGE = 5.0
_LETTER_POINTS, _TITLE_POINTS = 11, 9
_NOTCH = 120
_ZOOM_STEP = 1.15
_LEAF = {
    Qt.Key.Key_Up: -1,
    Qt.Key.Key_Left: -1,
    Qt.Key.Key_PageUp: -10,
    Qt.Key.Key_Down: 1,
    Qt.Key.Key_Right: 1,
    Qt.Key.Key_PageDown: 10,
}
_ENDS = (Qt.Key.Key_Return, Qt.Key.Key_Enter, Qt.Key.Key_Escape)
"""What completes or gives up a polygon, which belongs to the plane that it is drawn in."""

_HINT = (
    "Click or drag: move the cross (with Ctrl while painting). Wheel, arrow keys: leaf. "
    "Ctrl + wheel: zoom. Middle button, or Shift + drag: pan. Double-click: enlarge.\n"
    "While Click of the Segment dock is on, a click adds, a right click or Alt + click takes away, "
    "and the cross goes there. Drag or Ctrl + click: the cross alone. Ctrl + double-click: enlarge."
)


class PlaneCanvas(QtViewer):
    """The canvas of a plane's model; keys go on to the dock and so to the main viewer."""

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None:
            event.ignore()

    def keyReleaseEvent(self, event: QKeyEvent | None) -> None:
        if event is not None:
            event.ignore()


def _do_nothing(event: Any = None) -> None:
    pass


def make_current(canvas: QtViewer) -> None:
    """Let OpenGL speak of a canvas's own textures and buffers.

    When a layer goes, napari deletes them at once, in whichever context is the current one: with
    several canvases those of another canvas, which have the same numbers.
    """
    canvas.canvas.view.canvas.set_current()


class PlaneView(QWidget):
    """A plane: picture, cross, letters at the edges, and what the mouse does there."""

    enlarge = Signal()
    moved_by_hand = Signal()
    zoomed = Signal(float)

    def __init__(self, planes: Planes, plane: str) -> None:
        super().__init__()
        self.plane, self.planes = plane, planes
        self.model = planes.models[plane]
        self._camera = self.model.scene.camera
        self._pan_from: QPointF | None = None
        self._crossing = False
        self._notches = 0
        self.canvas = PlaneCanvas(self.model)
        self.canvas.dims.hide()
        self.canvas.setAcceptDrops(False)
        self.native = self.canvas.canvas.native
        self.native.setToolTip(_HINT)
        self.native.installEventFilter(self)
        self._window: weakref.ref[QWidget] | None = None
        self._is_shut = False
        self.marks = Marks(self)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.canvas)
        for widget in (self, self.canvas):
            widget.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Ignored)
        self.setMinimumSize(90, 70)
        self.model.layers.events.removing.connect(self._make_current)
        self.model.mouse_drag_callbacks.append(self._drag)
        self.model.mouse_move_callbacks.append(self._hover)
        self.model.events.status.connect(self._tell_status)
        self._camera.events.center.connect(self._redraw_marks)
        self._camera.events.zoom.connect(self._redraw_marks)

    def sizeHint(self) -> QSize:
        return QSize(380, 300)

    def shut(self) -> None:
        """Close the canvas for good."""
        self.model.mouse_drag_callbacks.clear()
        self.model.mouse_move_callbacks.clear()
        self.model.events.status.disconnect(self._tell_status)
        self._camera.events.center.disconnect(self._redraw_marks)
        self._camera.events.zoom.disconnect(self._redraw_marks)
        self.model.layers.events.removing.disconnect(self._make_current)
        self._is_shut = True
        self.canvas.close()

    def fall_silent(self) -> None:
        """Keep a canvas that is lost from OpenGL: what it would delete is no longer its own."""
        self.canvas.canvas.view.canvas.context.flush_commands = _do_nothing

    @property
    def is_lost(self) -> bool:
        """Whether the canvas has come into another window, where OpenGL knows nothing of it."""
        return self._window is not None and self.native.window() is not self._window()

    def settle(self) -> None:
        """Note the window that the canvas is drawn in."""
        self._window = weakref.ref(self.native.window())

    def pixel_of(self, position: Any) -> QPointF:
        """Give the canvas's pixel at which a place (S-I, A-P, R-L) in mm is shown."""
        down, across = shown_axes(self.plane)
        row, column = self._camera.center[-2:]
        zoom = self._camera.zoom
        x = (position[across] - column) * zoom + self.native.width() / 2
        y = (position[down] - row) * zoom + self.native.height() / 2
        return QPointF(float(x), float(y))

    def place_at(self, pixel: QPointF) -> tuple[float, ...]:
        """Give the place (S-I, A-P, R-L) in mm that a canvas's pixel shows."""
        down, across = shown_axes(self.plane)
        row, column = self._camera.center[-2:]
        place = list(self.planes.cross)
        place[across] = (pixel.x() - self.native.width() / 2) / self._camera.zoom + column
        place[down] = (pixel.y() - self.native.height() / 2) / self._camera.zoom + row
        return tuple(place)

    def bring_into_sight(self) -> None:
        """Move the picture if the cross lies outside of it."""
        pixel = self.pixel_of(self.planes.cross)
        if not QRectF(self.native.rect()).contains(pixel):
            down, across = shown_axes(self.plane)
            cross = self.planes.cross
            self._camera.center = (0.0, cross[down], cross[across])

    def eventFilter(self, watched: QObject | None, event: QEvent | None) -> bool:
        """Take the gestures that are about looking, before napari's own."""
        if event is None:
            return False
        kind = event.type()
        if kind == QEvent.Type.Paint and (self._is_shut or self.is_lost):
            self.fall_silent()
            return True
        if kind == QEvent.Type.Resize:
            self.marks.resize(self.native.size())
        elif kind == QEvent.Type.Leave:
            self._tell_place(None)
        elif kind in (QEvent.Type.KeyPress, QEvent.Type.KeyRelease):
            return self._key(event)  # type: ignore[arg-type]
        elif kind == QEvent.Type.Wheel:
            return self._wheel(event)  # type: ignore[arg-type]
        elif kind == QEvent.Type.MouseButtonPress:
            return self._press(event)  # type: ignore[arg-type]
        elif kind == QEvent.Type.MouseMove:
            return self._move(event)  # type: ignore[arg-type]
        elif kind == QEvent.Type.MouseButtonRelease:
            return self._release()
        elif kind == QEvent.Type.MouseButtonDblClick and self._looking:
            # two quick clicks are clicks
            if self._clicking is None or _has(event, Qt.KeyboardModifier.ControlModifier):
                self.enlarge.emit()
            return True
        return False

    @property
    def _looking(self) -> bool:
        """Whether the mouse has nothing else to do here, like painting."""
        active = self.planes.viewer.layers.selection.active
        return active is None or str(active.mode) == "pan_zoom"

    @property
    def _clicking(self) -> ClickMouse | None:
        """What clicks go to, while they make prompts."""
        return clicking(self.planes.viewer) if self._looking else None

    def _key(self, event: QKeyEvent) -> bool:
        if event.key() in _ENDS and not self._looking:
            return False
        steps = _LEAF.get(Qt.Key(event.key()))
        if steps is None or event.modifiers() & ~Qt.KeyboardModifier.KeypadModifier:
            event.ignore()
            return True
        if event.type() == QEvent.Type.KeyPress:
            self.planes.step(self.plane, steps)
        event.accept()
        return True

    def _wheel(self, event: QWheelEvent) -> bool:
        turn = event.angleDelta().y() * (-1 if event.inverted() else 1)
        if event.modifiers() & Qt.KeyboardModifier.ControlModifier:
            self._zoom_at(event.position(), _ZOOM_STEP ** (event.angleDelta().y() / _NOTCH))
        else:
            self._notches -= turn
            steps = int(self._notches / _NOTCH)
            self._notches -= steps * _NOTCH
            if steps:
                self.planes.step(self.plane, steps)
        event.accept()
        return True

    def _zoom_at(self, pixel: QPointF, factor: float) -> None:
        """Zoom so that the place under the mouse stays there."""
        before = np.array(self.place_at(pixel))
        self._camera.zoom *= factor
        self.moved_by_hand.emit()
        self.zoomed.emit(self._camera.zoom)
        shift = (before - np.array(self.place_at(pixel)))[list(shown_axes(self.plane))]
        row, column = self._camera.center[-2:]
        self._camera.center = (0.0, row + shift[0], column + shift[1])

    def _press(self, event: QMouseEvent) -> bool:
        left = event.button() == Qt.MouseButton.LeftButton
        mouse = self._clicking
        extends = mouse is not None and mouse.tool == "box"
        pans = left and self._looking and not extends
        pans = pans and _has(event, Qt.KeyboardModifier.ShiftModifier)
        if event.button() == Qt.MouseButton.MiddleButton or pans:
            self._pan_from = event.position()
        elif left and _has(event, Qt.KeyboardModifier.ControlModifier):
            self._crossing = True
            self.planes.move_cross(self.place_at(event.position()))
        else:
            return False
        return True

    def _move(self, event: QMouseEvent) -> bool:
        if self._pan_from is not None:
            way = event.position() - self._pan_from
            self._pan_from = event.position()
            row, column = self._camera.center[-2:]
            zoom = self._camera.zoom
            self._camera.center = (0.0, row - way.y() / zoom, column - way.x() / zoom)
            self.moved_by_hand.emit()
            return True
        if self._crossing:
            self.planes.move_cross(self.place_at(event.position()))
        return self._crossing

    def _release(self) -> bool:
        mine = self._crossing or self._pan_from is not None
        self._crossing, self._pan_from = False, None
        return mine

    def _drag(self, model: Any, event: Any) -> Generator[None, None, None]:
        """Move the cross, and let the main viewer's callbacks know of the click."""
        event.handled = True  # the camera would pan
        mouse = self._clicking
        if mouse is not None:
            yield from self._click(mouse, event)
            return
        if event.button != 1 or "Alt" in event.modifiers:
            return
        looking = self._looking
        viewer = self.planes.viewer
        if looking:
            self.planes.move_cross(event.position)
        active = viewer.layers.selection.active
        told = [viewer, active] if looking and active is not None else [viewer]
        # Callbacks keep the event that they were called with and see it change.
        own = type(event)(event.__wrapped__, exceptions=("handled",))
        for one in told:
            mouse_press_callbacks(one, own)
        yield
        while event.type == "mouse_move":
            if looking:
                self.planes.move_cross(event.position)
            self._tell_place(event.position)
            for one in told:
                mouse_move_callbacks(one, event.__wrapped__)
            yield
        for one in told:
            mouse_release_callbacks(one, event.__wrapped__)

    def _click(self, mouse: ClickMouse, event: Any) -> Generator[None, None, None]:
        """Make a prompt; the cross goes along unless something is drawn."""
        for _ in mouse.press(self.planes.viewer, event):
            if not mouse.drawing:
                self.planes.move_cross(event.position)
            self._tell_place(event.position)
            yield

    def _hover(self, model: Any, event: Any) -> None:
        """Let what reads the mouse's place in the main viewer read it here."""
        viewer = self.planes.viewer
        if len(event.position) == viewer.dims.ndim:
            viewer.cursor.position = event.position
            self._tell_place(event.position)
            for call in viewer.mouse_move_callbacks:
                call(viewer, event)

    def _tell_place(self, position: Any) -> None:
        notices.pointed.emit((self.planes.viewer, position))

    def _tell_status(self, event: Any) -> None:
        if self.model.mouse_over_canvas:
            self.planes.viewer.status = self.model.status

    def _redraw_marks(self, event: Any = None) -> None:
        self.marks.update()

    def _make_current(self, event: Any) -> None:
        if not self.is_lost:
            make_current(self.canvas)


class Marks(QWidget):
    """The cross, the letters at the edges and the plane's name, drawn over the canvas."""

    def __init__(self, view: PlaneView) -> None:
        super().__init__(view.native)
        self._view = view
        self.shows_cross = True
        self.setAttribute(Qt.WidgetAttribute.WA_TransparentForMouseEvents)
        self.setAttribute(Qt.WidgetAttribute.WA_NoSystemBackground)
        self.resize(view.native.size())

    def paintEvent(self, event: QPaintEvent | None) -> None:
        painter = QPainter(self)
        painter.setRenderHint(QPainter.RenderHint.Antialiasing)
        if not self._view.planes.ready:
            painter.setPen(QColor("#9a9a9a"))
            words = f"{self._view.plane}\nOpen a scan to see it here."
            painter.drawText(self.rect(), Qt.AlignmentFlag.AlignCenter, words)
            return
        if self.shows_cross:
            self._draw_cross(painter)
        self._draw_words(painter)

    def _draw_cross(self, painter: QPainter) -> None:
        """Draw where the other two planes lie, with the place itself left free."""
        at = self._view.pixel_of(self._view.planes.cross)
        down, across = shown_axes(self._view.plane)
        names = {axis: name for name, axis in PLANES.items()}
        # On the middle of a pixel a line is one pixel wide and sharp.
        x, y = np.floor(at.x()) + 0.5, np.floor(at.y()) + 0.5
        for line, ends in (
            (across, ((x, 0.0, x, y - _GAP), (x, y + _GAP, x, float(self.height())))),
            (down, ((0.0, y, x - _GAP, y), (x + _GAP, y, float(self.width()), y))),
        ):
            painter.setPen(QPen(QColor(COLORS[names[line]]), 1.0))
            for x0, y0, x1, y1 in ends:
                painter.drawLine(QPointF(x0, y0), QPointF(x1, y1))

    def _draw_words(self, painter: QPainter) -> None:
        planes, plane = self._view.planes, self._view.plane
        box = QRectF(self.rect()).adjusted(_EDGE, _EDGE, -_EDGE, -_EDGE)
        vertical, horizontal = Qt.AlignmentFlag.AlignVCenter, Qt.AlignmentFlag.AlignHCenter
        sides = (
            Qt.AlignmentFlag.AlignLeft | vertical,
            Qt.AlignmentFlag.AlignRight | vertical,
            Qt.AlignmentFlag.AlignTop | horizontal,
            Qt.AlignmentFlag.AlignBottom | horizontal,
        )
        for letter, side in zip(planes.ends(plane), sides, strict=True):
            _write(painter, box, side, letter, _LETTER_POINTS, "#ffffff")
        name = plane
        if not planes.is_anatomical:
            name = f"Axis {planes.viewer.dims.axis_labels[PLANES[plane] - 3]}"
        number, count = planes.slice_of(plane)
        top_left = Qt.AlignmentFlag.AlignTop | Qt.AlignmentFlag.AlignLeft
        _write(painter, box, top_left, name, _TITLE_POINTS, COLORS[plane])
        bottom_left = Qt.AlignmentFlag.AlignBottom | Qt.AlignmentFlag.AlignLeft
        words = f"{number} / {count}"
        _write(painter, box, bottom_left, words, _TITLE_POINTS, COLORS[plane])


def _has(event: Any, modifier: Qt.KeyboardModifier) -> bool:
    return bool(event.modifiers() & modifier)


def _write(painter: QPainter, box: QRectF, side: Any, words: str, points: int, color: str) -> None:
    """Write with a dark rim, which can be read on any picture."""
    if not words:
        return
    font = QFont(painter.font())
    font.setPointSize(points)
    font.setBold(True)
    painter.setFont(font)
    room = painter.boundingRect(box, int(side), words)
    path = QPainterPath()
    path.addText(room.left(), room.top() + painter.fontMetrics().ascent(), font, words)
    painter.strokePath(path, QPen(QColor(0, 0, 0, 220), 3.0))
    painter.fillPath(path, QColor(color))
