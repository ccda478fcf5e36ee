"""Pictures that a run makes of scans it has not seen, from its first validation to its last."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Qt
from qtpy.QtGui import QPixmap, QResizeEvent
from qtpy.QtWidgets import QLabel, QSlider, QWidget

from napari_spad.widgets.forms import column, text
from spad.training import runs

CAPTIONS = {
    "tokenizer": "scan, reconstruction, four times their difference",
    "mim": "scan, what the model sees of it, what it fills in",
    "segmentation": "scan, labels drawn by people, labels found",
}
_HEIGHT = 240


class SampleView(QWidget):
    """Shows the newest picture of a run, or an older one that a person goes back to."""

    def __init__(self) -> None:
        super().__init__()
        self._pictures: list[tuple[int, Path]] = []
        self._pixmap = QPixmap()
        self._task = ""
        self.picture = QLabel()
        self.picture.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self.picture.setMinimumHeight(60)
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
        self._show()

    def resizeEvent(self, event: QResizeEvent | None) -> None:
        super().resizeEvent(event)
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

    def _fit(self) -> None:
        if not self._pixmap.isNull():
            self.picture.setPixmap(
                self._pixmap.scaled(
                    max(50, self.width()),
                    _HEIGHT,
                    Qt.AspectRatioMode.KeepAspectRatio,
                    Qt.TransformationMode.SmoothTransformation,
                )
            )
