"""A small form for the spacing of files that state none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QDialog,
    QDialogButtonBox,
    QDoubleSpinBox,
    QPushButton,
    QVBoxLayout,
    QWidget,
)

from napari_spad.widgets.forms import Form, text

if TYPE_CHECKING:
    from napari_spad.opening import SpacingWanted

_AXES = ("x (i, across)", "y (j, down)", "z (k, between slices)")
_LEAST, _MOST, _DIGITS = 1e-4, 1000.0, 4
_WIDTH = 460


class SpacingForm(QDialog):
    """Asks for mm along each axis; tells by `stated` the spacing, or None to go without one."""

    stated = Signal(object)

    def __init__(self, asked: SpacingWanted, parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._shape = asked.shape
        self.setWindowTitle(f"Spacing of {asked.wanted.name}")
        self.reason = text(f"{asked.wanted.name} states no spacing of its voxels. {asked.order}")
        self.reason.setToolTip(asked.sentence)
        self.steps = [self._box() for _ in asked.shape]
        self.extent = text(faint=True)
        form = Form()
        for name, count, box in zip(_AXES, asked.shape, self.steps, strict=True):
            if count > 1 or name == _AXES[0]:
                form.add(f"{name}, {count} voxels", box)
            box.valueChanged.connect(self._show_extent)
        form.add("", self.extent)
        self.steps[0].valueChanged.connect(self._follow_across)
        self.steps[1].valueChanged.connect(self._stop_following)
        self._follows = True
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.open_button = QPushButton("Open")
        self.buttons.addButton(self.open_button, QDialogButtonBox.ButtonRole.AcceptRole)
        self.skip_button: QPushButton | None = None
        if asked.can_skip:
            self.skip_button = QPushButton("Not known: take 1 mm")
            self.buttons.addButton(self.skip_button, QDialogButtonBox.ButtonRole.ActionRole)
            self.skip_button.setToolTip("Sizes and volumes will not be true.")
            self.skip_button.clicked.connect(self._skip)
        layout = QVBoxLayout(self)
        layout.addWidget(self.reason)
        layout.addLayout(form)
        layout.addWidget(self.buttons)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.setMinimumWidth(_WIDTH)
        self._show_extent()

    def accept(self) -> None:
        """Take the spacing as it stands."""
        super().accept()
        self.stated.emit(tuple(box.value() for box in self.steps))

    def _skip(self) -> None:
        super().accept()
        self.stated.emit(None)

    def _box(self) -> QDoubleSpinBox:
        box = QDoubleSpinBox()
        box.setDecimals(_DIGITS)
        box.setRange(_LEAST, _MOST)
        box.setValue(1.0)
        box.setSingleStep(0.1)
        box.setSuffix(" mm")
        return box

    def _follow_across(self, step: float) -> None:
        """Keep pixels square until a person says otherwise."""
        if self._follows:
            self.steps[1].setValue(step)
            self._follows = True

    def _stop_following(self) -> None:
        self._follows = False

    def _show_extent(self) -> None:
        pairs = zip(self._shape, self.steps, strict=True)
        sizes = [f"{count * box.value():.4g}" for count, box in pairs if count > 1]
        self.extent.setText(f"The scan is then {' × '.join(sizes) or '1'} mm in size.")
