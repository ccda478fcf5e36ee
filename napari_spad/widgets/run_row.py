"""Run, Cancel, a bar and a line of text."""

from __future__ import annotations

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QProgressBar, QPushButton, QVBoxLayout, QWidget

from napari_spad.widgets.forms import row, text


class RunRow(QWidget):
    """Run, Cancel, a bar and a line of text; a disabled Run says why."""

    run = Signal()
    cancel = Signal()

    def __init__(self, verb: str) -> None:
        super().__init__()
        self.run_button = QPushButton(verb)
        self.run_button.setDefault(True)
        self.cancel_button = QPushButton("Cancel")
        self.bar = QProgressBar()
        self.bar.setRange(0, 1000)
        self.bar.setTextVisible(False)
        self.bar.setFixedHeight(8)
        self.status = text(faint=True)
        self.use = text(faint=True)
        self.use.hide()
        self.run_button.clicked.connect(self.run)
        self.cancel_button.clicked.connect(self._cancel)
        layout = QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setSpacing(4)
        buttons = row(self.run_button, self.cancel_button)
        buttons.setStretch(0, 3)
        buttons.setStretch(1, 1)
        layout.addLayout(buttons)
        layout.addWidget(self.bar)
        layout.addWidget(self.status)
        layout.addWidget(self.use)
        self._why = ""
        self.set_running(False)

    def set_ready(self, why_not: str = "") -> None:
        """Enable Run, or disable it and say why."""
        self._why = why_not
        if not self.running:
            self.run_button.setEnabled(not why_not)
            self.run_button.setToolTip(why_not)
            self.status.setText(why_not)

    @property
    def running(self) -> bool:
        """Whether a job is under way."""
        return self.cancel_button.isEnabled()

    def set_running(self, running: bool, words: str = "") -> None:
        """Show that a job has begun or ended."""
        self.cancel_button.setEnabled(running)
        self.cancel_button.setToolTip("" if running else "Nothing is running.")
        self.run_button.setEnabled(not running and not self._why)
        self.run_button.setToolTip("It is running." if running else self._why)
        self.bar.setValue(0)
        self.bar.setVisible(running)
        self.status.setText(words or ("" if running else self._why))

    def show_use(self, words: str) -> None:
        """Say what the last job used: device, time and memory."""
        self.use.setText(words)
        self.use.setVisible(bool(words))

    def show_progress(self, fraction: float, words: str) -> None:
        """Show how far the job is."""
        if self.running:
            self.bar.setValue(round(fraction * 1000))
            self.status.setText(words)

    def _cancel(self) -> None:
        self.status.setText("Stopping ...")
        self.cancel.emit()
