"""The choice of what a model looks at: the whole scan, or a box that a person draws."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QLabel, QPushButton, QSpinBox, QWidget

from napari_spad import notify
from napari_spad.box import Box, Intervals, words
from napari_spad.view import plane_of
from napari_spad.widgets.forms import Chooser, column, row, text
from napari_spad.widgets.notices import follow

if TYPE_CHECKING:
    from napari import Viewer

WHOLE, BOX = "whole scan", "a box"
_HINT = "Drag the yellow corners, or draw another box, on any plane."
_SPIN, _BUTTON = 84, 44
_DRAW = "Press the mouse at one corner of the box, release it at the opposite one."


class PartChooser(QWidget):
    """The whole scan, or a box in it; of the box, the slices that it reaches to can be typed.

    Its `chooser` stands in a form above it; the rest is shown if a box is chosen.
    """

    changed = Signal()

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._scan: Any = None
        self._box: Box | None = None
        self.chooser = Chooser()
        self.chooser.addItems([WHOLE, BOX])
        self.chooser.setEnabled(False)
        self.first, self.last = QSpinBox(), QSpinBox()
        self.draw_button = QPushButton("Draw another")
        self.draw_button.setToolTip(
            "Press the mouse at one corner of the box, release it at another"
        )
        self.said = text(faint=True)
        self._lay_out()
        self._connect()
        self._choose()

    @property
    def box(self) -> Intervals | None:
        """The box in voxels along S-I, A-P and R-L; None for the whole scan."""
        return None if self._box is None else self._box.intervals

    def show_scan(self, layer: Any) -> None:
        """Take note of the scan in question; a box belongs to its scan."""
        if layer is self._scan:
            return
        self._scan = layer
        self.chooser.setEnabled(layer is not None)
        self._remove()
        self.chooser.setCurrentText(WHOLE)
        self._choose()

    def rest(self) -> None:
        """Let the mouse choose organs again."""
        if self._box is not None:
            self._box.rest()

    def _lay_out(self) -> None:
        layout = column(self, bare=True)
        layout.setSpacing(3)
        heres = [self._here(spin) for spin in (self.first, self.last)]
        limits = row(QLabel("Slices"), self.first, heres[0], QLabel("to"), self.last, heres[1])
        limits.addStretch(1)
        layout.addLayout(limits)
        layout.addWidget(self.said)
        layout.addWidget(self.draw_button)

    def _here(self, spin: QSpinBox) -> QPushButton:
        button = QPushButton("here")
        button.setToolTip("The slice that is shown")
        button.clicked.connect(lambda: spin.setValue(self._slice_shown() + 1))
        for widget, width in ((spin, _SPIN), (button, _BUTTON)):
            widget.setFixedWidth(width)
        return button

    def _connect(self) -> None:
        self.chooser.currentIndexChanged.connect(self._choose)
        self.first.valueChanged.connect(self._typed)
        self.last.valueChanged.connect(self._typed)
        self.draw_button.clicked.connect(self._draw)
        dims = self._viewer.dims.events
        for event in (dims.order, dims.ndisplay):
            follow(self, event, self._show)
        self.destroyed.connect(lambda: self._remove())  # PyQt calls no method of what dies

    def _choose(self, index: int = 0) -> None:
        wanted = self.chooser.currentText() == BOX and self._scan is not None
        if wanted and self._box is None:
            box = Box(self._viewer, self._scan)
            box.changed.connect(self._show)
            box.removed.connect(self._box_removed)
            box.outside.connect(self._refuse)
            self._box = box
        elif not wanted:
            self._remove()
        self.setVisible(wanted)
        self._show()

    def _draw(self) -> None:
        if self._box is not None:
            self._box.draw_another()
            self.said.setText(_DRAW)

    def _show(self, event: Any = None) -> None:
        """Show the slices of the box along the axis that is shown, and its size."""
        box = self._box
        if box is not None:
            count = box.shape[box.through]
            start, stop = box.intervals[box.through]
            for spin, value in ((self.first, start + 1), (self.last, stop)):
                spin.blockSignals(True)
                spin.setRange(1, count)
                spin.setValue(value)
                spin.setToolTip(f"of {count}")
                spin.blockSignals(False)
            plane = (plane_of(self._viewer) or "Axial").lower()
            size = words(box.intervals, box.scale)
            self.said.setText(f"Of {count} {plane} slices; the box is {size}. {_HINT}")
        self.changed.emit()

    def _typed(self, value: int = 0) -> None:
        if self._box is None:
            return
        first, last = self.first.value(), self.last.value()
        if first > last:
            # the one that was typed rules
            first, last = (value, value)
        self._box.set_slices(first - 1, last - 1)
        self._show()

    def _slice_shown(self) -> int:
        return 0 if self._box is None else self._box.slice_shown

    def _refuse(self) -> None:
        name = self._scan.name
        notify.error(
            f"The rectangle lies outside {name!r}; expected one that covers a part of the scan; "
            "the box stays as it was, draw another one on the picture."
        )

    def _box_removed(self) -> None:
        """A person has removed the layer of the box."""
        self.chooser.setCurrentText(WHOLE)

    def _remove(self, event: Any = None) -> None:
        box, self._box = self._box, None
        if box is not None:
            box.close()
