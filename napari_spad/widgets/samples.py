"""Pictures that a run makes of scans it has not seen, from its first validation to its last."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import QSize, Qt, Signal
from qtpy.QtGui import QMouseEvent, QPixmap, QResizeEvent
from qtpy.QtWidgets import QDialog, QLabel, QSizePolicy, QSlider, QVBoxLayout, QWidget

from napari_spad.widgets.forms import column, text
from spad.training import runs

CAPTIONS = {
    "tokenizer": "scan, reconstruction, four times their difference",
    "mim": "scan, what the model sees of it, what it fills in",
    "segmentation": "scan, labels drawn by people, labels found",
}
_HEIGHT = 240
_SCROLL_BAR = 20
"""Pixels that a scroll bar takes at most."""
_SCREEN_SHARE = 0.8


class SampleView(QWidget):
    """Shows the newest picture of a run, or an older one that a person goes back to."""

    def __init__(self) -> None:
        super().__init__()
        self._pictures: list[tuple[int, Path]] = []
        self._pixmap = QPixmap()
        self._task = ""
        self._room = 0
        self.large: LargePicture | None = None
        self.picture = _Clickable()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        # a label is at least as wide as its picture, which would then never shrink again
        self.picture.setSizePolicy(QSizePolicy.Policy.Ignored, QSizePolicy.Policy.Fixed)
        self.picture.setCursor(Qt.CursorShape.PointingHandCursor)
        self.picture.setToolTip("Click to see it larger")
        self.picture.clicked.connect(self.enlarge)
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setToolTip("Go back to earlier pictures of this run")
        self.slider.valueChanged.connect(self._show)
        self.caption = text(faint=True)
        layout = column(self, bare=True)
        layout.addWidget(self.picture)
        layout.addWidget(self.slider)
        layout.addWidget(self.caption)
        self.hide()

    def show_run(self, run: Path | None, task: str = "") -> None:
        """Look for pictures of a run; the newest is shown unless a person looks at another."""
        found = [] if run is None else list(runs.sample_pictures(run).items())
        if found == self._pictures:
            return
        follows = self.slider.value() >= len(self._pictures) - 1 or found[:1] != self._pictures[:1]
        self._pictures, self._task = found, task
        self.setVisible(bool(found))
        self.slider.blockSignals(True)
        self.slider.setRange(0, max(0, len(found) - 1))
        if follows:
            self.slider.setValue(len(found) - 1)
        self.slider.blockSignals(False)
        self.slider.setVisible(len(found) > 1)
        self._show()

    def enlarge(self) -> None:
        """Show the picture in a window of its own, which follows the slider."""
        if self._pixmap.isNull():
            return
        if self.large is None:
            self.large = LargePicture(self)
        self.large.show_picture(self._pixmap, self.caption.text())
        self.large.show()
        self.large.raise_()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
        # a scroll bar comes and goes with the picture's height, which must not follow that
        if abs(self.width() - self._room) > _SCROLL_BAR:
            self._fit()

    def _show(self, index: int = 0) -> None:
        index = self.slider.value()
        if not 0 <= index < len(self._pictures):
            return
        step, path = self._pictures[index]
        self._pixmap = QPixmap(str(path))
        self._fit()
        what = CAPTIONS.get(self._task, "")
        self.caption.setText(f"Validation scans at step {step}: {what}")
        if self.large is not None and self.large.isVisible():
            self.large.show_picture(self._pixmap, self.caption.text())

    def _fit(self) -> None:
        if not self._pixmap.isNull():
            self._room = self.width()
            wide = max(50, self._room - _SCROLL_BAR)
            shown = _fitted(self._pixmap, QSize(wide, _HEIGHT))
            self.picture.setPixmap(shown)
            self.picture.setFixedHeight(shown.height())


class LargePicture(QDialog):
    """A picture as large as the screen allows."""

    def __init__(self, parent: QWidget) -> None:
        super().__init__(parent)
        self.picture = QLabel()
        self.caption = text(faint=True)
        layout = QVBoxLayout(self)
        layout.addWidget(self.picture)
        layout.addWidget(self.caption)

    def show_picture(self, pixmap: QPixmap, words: str) -> None:
        """Show a picture and what it is."""
        screen = self.screen()
        assert screen is not None
        self.picture.setPixmap(_fitted(pixmap, screen.availableSize() * _SCREEN_SHARE))
        self.caption.setText(words)
        self.setWindowTitle(words.partition(":")[0])


class _Clickable(QLabel):
    """A label that tells of clicks."""

    clicked = Signal()

    def mouseReleaseEvent(self, event: QMouseEvent | None) -> None:
        super().mouseReleaseEvent(event)
        self.clicked.emit()


def _fitted(pixmap: QPixmap, size: QSize) -> QPixmap:
    return pixmap.scaled(
        size,
        Qt.AspectRatioMode.KeepAspectRatio,
        Qt.TransformationMode.SmoothTransformation,
    )
