"""Comparing a scan with what a model makes of it: side by side, faded, swiped or blinking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakSet

from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QCheckBox, QGridLayout, QLabel, QPushButton, QSlider, QWidget

from napari_spad import grids, keys
from napari_spad.widgets.forms import column, row
from napari_spad.widgets.notices import follow

if TYPE_CHECKING:
    from napari import Viewer

_BLINK_MS = 500
_ALL = 100
_BRIEF = 11
_LOOK = ("rgb", "blending", "interpolation2d", "interpolation3d", "scale", "translate")
_GRAY_LOOK = ("colormap", "contrast_limits", "gamma")

_comparisons: WeakSet[Compare] = WeakSet()


class Compare(QWidget):
    """A switch for napari's grid, sliders that fade and swipe to the result, and a blink.

    Args:
        viewer: the viewer.
        result: what the result is called.
    """

    def __init__(self, viewer: Viewer, result: str) -> None:
        super().__init__()
        self._viewer = viewer
        self._result = result
        self._front: Any = None
        self._cut: Any = None
        self._fields: list[Any] = []
        self._overlay: list[Any] = []
        self._watched: list[Callable[[], None]] = []
        self.side_by_side = QCheckBox("Side by side")
        self.side_by_side.setToolTip("Show the scan and the results in fields of their own")
        self.side_by_side.toggled.connect(self._arrange)
        self.blink_button = QPushButton("Blink")
        self.blink_button.setCheckable(True)
        self.blink_button.toggled.connect(self._blink)
        self.fade = self._slider(f"Fade from the scan to what was {result}", self._fade)
        self.swipe = self._slider(
            f"Swipe: what was {result} on the left, the scan on the right of a line", self._swipe
        )
        self._names = [QLabel() for _ in range(4)]
        self._timer = QTimer(self)
        self._timer.setInterval(_BLINK_MS)
        self._timer.timeout.connect(self._beat)
        layout = column(self, bare=True)
        buttons = row(self.side_by_side, self.blink_button)
        buttons.setStretch(0, 1)
        layout.addLayout(buttons)
        layout.addLayout(self._sliders())
        self._name("scan", result)
        self.setEnabled(False)
        follow(self, viewer.canvas.grid.events.enabled, self._grid_switched)
        follow(self, viewer.dims.events.order, self._swipe_again)
        follow(self, viewer.dims.events.ndisplay, self._swipe_again)
        follow(self, viewer.layers.events.removed, self._removed)
        _comparisons.add(self)
        self.destroyed.connect(lambda: _comparisons.discard(self))

    def compare(
        self,
        front: Any,
        *,
        fields: Sequence[Any],
        overlay: Sequence[Any],
        side_by_side: bool = False,
        names: tuple[str, str] | None = None,
    ) -> None:
        """Compare a layer with the scan below it; layers that are in the way are hidden.

        Args:
            front: the layer that fades.
            fields: the layers to see side by side.
            overlay: the layers to see on top of each other.
            side_by_side: whether to switch to that, else it stays as it is.
            names: what the two ends of the sliders are called, if not the scan and the result.
        """
        self._stop()
        while self._watched:
            self._watched.pop()()
        self._front, self._fields, self._overlay = front, list(fields), list(overlay)
        self._watched = [
            follow(self, front.events.data, self._swipe_again),
            follow(self, front.events.contrast_limits, self._swipe_look),
        ]
        self._name(*(names or ("scan", self._result)))
        self.setEnabled(True)
        on = side_by_side or self.side_by_side.isChecked()
        self._check(on)
        self._arrange(on)

    def put(self, layer: Any, instead_of: Sequence[Any]) -> None:
        """Show one more layer over the others, and side by side in the place of another.

        Args:
            layer: the layer.
            instead_of: those whose place it takes: side by side the first of them that is there,
                over the others all of them.
        """
        found = next((one for one in instead_of if one in self._fields), None)
        if layer not in self._fields and found is not None:
            self._fields[self._fields.index(found)] = layer
        if layer not in self._overlay:
            self._overlay = [one for one in self._overlay if one not in instead_of] + [layer]
        shown = self._fields if self.side_by_side.isChecked() else self._overlay
        for one in instead_of:
            one.visible = one in shown
        layer.visible = True

    def _slider(self, words: str, call: Callable[[int], None]) -> QSlider:
        slider = QSlider(Qt.Orientation.Horizontal)
        slider.setRange(0, _ALL)
        slider.setValue(_ALL)
        slider.setToolTip(words)
        slider.valueChanged.connect(call)
        return slider

    def _sliders(self) -> QGridLayout:
        table = QGridLayout()
        table.setSpacing(4)
        table.setColumnStretch(2, 1)
        for at, (name, slider) in enumerate((("Fade", self.fade), ("Swipe", self.swipe))):
            ends = self._names[2 * at : 2 * at + 2]
            for place, widget in enumerate((QLabel(name), ends[0], slider, ends[1])):
                table.addWidget(widget, at, place)
        return table

    def _name(self, scan: str, result: str) -> None:
        for at, name in enumerate((scan, result, result, scan)):
            brief = name if len(name) <= _BRIEF else f"{name[: _BRIEF - 1]}…"
            self._names[at].setText(brief)
            self._names[at].setToolTip(name)

    def _arrange(self, on: bool) -> None:
        self._stop()
        shown = self._fields if on else self._overlay
        for layer in self._viewer.layers:
            layer.visible = layer in shown
        grid = self._viewer.canvas.grid
        grid.stride = 1
        grid.enabled = on
        self._enable(not on)
        self._front.opacity = 1.0 if on else self.fade.value() / _ALL
        self._viewer.reset_view()

    def _enable(self, on: bool) -> None:
        for widget in (self.fade, self.swipe, self.blink_button):
            widget.setEnabled(on)
        why = "" if on else "Switch off Side by side first. "
        key = keys.key_of(keys.BLINK)
        told = f"Show and hide what was {self._result}, twice a second"
        self.blink_button.setToolTip(why + told + (f" ({key})" if key else ""))

    def _grid_switched(self, event: Any = None) -> None:
        """Another dock or napari's own button has switched the grid."""
        on = bool(self._viewer.canvas.grid.enabled)
        if self._front is not None:
            self._check(on)
            self._enable(not on)
            if on:
                self._stop()

    def _check(self, on: bool) -> None:
        self.side_by_side.blockSignals(True)
        self.side_by_side.setChecked(on)
        self.side_by_side.blockSignals(False)

    def _fade(self, value: int) -> None:
        if self._front is not None and not self.side_by_side.isChecked():
            self._front.opacity = value / _ALL
            self._swipe_look()

    # Swiping: napari cannot cut a picture, so a layer of its own shows the part of the result.

    def _swipe(self, value: int) -> None:
        if self._front is None or self.side_by_side.isChecked():
            return
        if value == _ALL or self._viewer.dims.ndisplay == 3:
            self._end_swipe()
            return
        data = self._front.data
        across = self._viewer.dims.displayed[-1] - (self._viewer.dims.ndim - self._front.ndim)
        if across < 0:
            return
        cut = [slice(None)] * self._front.ndim
        cut[across] = slice(0, max(1, round(value / _ALL * data.shape[across])))
        part = data[tuple(cut)]
        if self._cut is None:
            self._cut = self._new_cut(part)
        else:
            self._cut.data = part
        self._cut.visible = value > 0
        self._front.visible = False
        self._swipe_look()

    def _new_cut(self, part: Any) -> Any:
        front = self._front
        look = {key: getattr(front, key) for key in _LOOK}
        if not front.rgb:
            look |= {key: getattr(front, key) for key in _GRAY_LOOK}
        selected = set(self._viewer.layers.selection)
        cut = self._viewer.add_image(
            part,
            name=f"{front.name} (swipe)",
            units=front.units,
            axis_labels=front.axis_labels,
            metadata={grids.KEY: {"role": "swipe"}},
            **look,
        )
        self._viewer.layers.move(
            self._viewer.layers.index(cut), self._viewer.layers.index(front) + 1
        )
        self._viewer.layers.selection = selected
        return cut

    def _swipe_again(self, event: Any = None) -> None:
        if self._cut is not None:
            self._swipe(self.swipe.value())

    def _swipe_look(self, event: Any = None) -> None:
        if self._cut is not None:
            self._cut.opacity = self._front.opacity
            if not self._front.rgb:
                self._cut.contrast_limits = self._front.contrast_limits

    def _end_swipe(self) -> None:
        if self._cut is not None:
            cut, self._cut = self._cut, None
            if cut in self._viewer.layers:
                self._viewer.layers.remove(cut)
            self._front.visible = True

    def _removed(self, event: Any) -> None:
        """A person has removed a layer that is compared."""
        gone = event.value
        if self._cut is not None and gone == self._cut:
            self._cut = None
            self._rest(self.swipe)
        elif self._front is not None and gone == self._front:
            self._stop()
            self._front = None
            self.setEnabled(False)

    # Blinking

    def _blink(self, on: bool) -> None:
        if on and self._front is not None:
            self._end_swipe()
            self._rest(self.swipe)
            self._timer.start()
        else:
            self._timer.stop()
            if self._front is not None and not self.side_by_side.isChecked():
                self._front.visible = True

    def _beat(self) -> None:
        if self._front is not None:
            self._front.visible = not self._front.visible

    def _stop(self) -> None:
        """End the swipe and the blink."""
        self.blink_button.setChecked(False)
        self._end_swipe()
        self._rest(self.swipe)

    def _rest(self, slider: QSlider) -> None:
        slider.blockSignals(True)
        slider.setValue(_ALL)
        slider.blockSignals(False)

    def _is_of(self, viewer: Any) -> bool:
        own = getattr(self._viewer, "__wrapped__", self._viewer)
        return own is getattr(viewer, "__wrapped__", viewer)


def blink(viewer: Any) -> bool:
    """Switch the blinking in a viewer on or off; False where nothing is compared there."""
    for one in list(_comparisons):
        if one._is_of(viewer) and one.isEnabled() and one.blink_button.isEnabled():
            one.blink_button.toggle()
            return True
    return False
