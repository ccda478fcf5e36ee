"""The buttons that open files and folders, reading them while the viewer stays alive."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Signal
from qtpy.QtWidgets import QFileDialog, QLabel, QProgressBar, QPushButton, QWidget

from napari_spad import notify, opening
from napari_spad.widgets import threads
from napari_spad.widgets.forms import column, row, text
from napari_spad.widgets.series_list import SeriesDialog
from napari_spad.widgets.spacing_form import SpacingForm

if TYPE_CHECKING:
    from napari import Viewer

_HINT = "DICOM: use Open folder; a folder dropped on napari goes to napari's own reader."
_BAR = 6


class OpenRow(QWidget):
    """Opens files and folders; the layer of each comes with `opened`."""

    opened = Signal(object)

    def __init__(self, viewer: Viewer) -> None:
        super().__init__()
        self._viewer = viewer
        self._queue: list[opening.Wanted] = []
        turns = self._turns = threads.Turns()
        self.destroyed.connect(lambda: turns.next())
        self.dialog: SeriesDialog | SpacingForm | None = None
        self.file_button = QPushButton("Open file ...")
        self.file_button.setToolTip(
            "NIfTI, NRRD, MetaImage, Analyze, DICOM, PNG, JPEG, TIFF or numpy, with true geometry"
        )
        self.folder_button = QPushButton("Open folder ...")
        self.folder_button.setToolTip(
            "A folder of DICOM files, an OME-Zarr image, or one mask file per organ"
        )
        self.file_button.clicked.connect(self._ask_file)
        self.folder_button.clicked.connect(self._ask_folder)
        self.hint = text(_HINT, faint=True)
        self.busy = QWidget()
        self.status = QLabel()
        self.status.setWordWrap(True)
        bar = QProgressBar()
        bar.setRange(0, 0)
        bar.setTextVisible(False)
        bar.setFixedHeight(_BAR)
        self.cancel_button = QPushButton("Cancel")
        self.cancel_button.setToolTip("Do not show it, whatever becomes of the reading")
        self.cancel_button.clicked.connect(self.cancel)
        inner = column(self.busy, bare=True)
        state = row(self.status, self.cancel_button)
        state.setStretch(0, 1)
        inner.addLayout(state)
        inner.addWidget(bar)
        self.busy.hide()
        layout = column(self, bare=True)
        layout.addLayout(row(self.file_button, self.folder_button))
        layout.addWidget(self.hint)
        layout.addWidget(self.busy)

    @property
    def running(self) -> bool:
        """Whether something is being read."""
        return not self.busy.isHidden()

    def open(self, path: str) -> None:
        """Open a file or a folder, asking what has to be known first."""
        name = opening.Wanted(path).name
        self._work(f"Looking into {name} ...", lambda: opening.find(path), self._found)

    def cancel(self) -> None:
        """Take no more notice of what is being read, and leave out what waits."""
        self._turns.next()
        self._queue.clear()
        self._idle()

    def _ask_file(self) -> None:
        path, _ = QFileDialog.getOpenFileName(self, "Open a scan", "", opening.file_filter())
        if path:
            self.open(path)

    def _ask_folder(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "Open a folder of a scan")
        if path:
            self.open(path)

    def _found(self, found: opening.Choice | opening.Wanted) -> None:
        self._idle()
        if isinstance(found, opening.Wanted):
            self._queue.append(found)
            self._next()
            return
        dialog = SeriesDialog(found.path, list(found.series), self)
        dialog.chosen.connect(self._choose)
        self._ask(dialog)

    def _choose(self, series: list[Any]) -> None:
        self._queue += [opening.wanted_of(one) for one in series]
        self._next()

    def _next(self) -> None:
        if not self._queue:
            self._idle()
            return
        wanted = self._queue.pop(0)
        more = f" ({len(self._queue)} more)" if self._queue else ""
        self._work(f"Reading {wanted.name} ...{more}", lambda: opening.read(wanted), self._read)

    def _read(self, found: opening.Opened | opening.SpacingWanted) -> None:
        if isinstance(found, opening.SpacingWanted):
            self._idle()
            form = SpacingForm(found, self)
            form.stated.connect(lambda spacing: self._stated(found, spacing))
            form.rejected.connect(self._next)
            self._ask(form)
            return
        from napari.layers import Layer

        layer = Layer.create(*found.data)
        self._viewer.add_layer(layer)
        if found.notes:
            notify.info(f"{layer.name}: {' '.join(found.notes)}")
        self.opened.emit(layer)
        self._next()

    def _stated(self, asked: opening.SpacingWanted, spacing: tuple[float, ...] | None) -> None:
        self._queue.insert(0, opening.with_spacing(asked, spacing))
        self._next()

    def _ask(self, dialog: SeriesDialog | SpacingForm) -> None:
        self.dialog = dialog
        dialog.finished.connect(dialog.deleteLater)
        dialog.open()

    def _work(self, words: str, what: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do something in a thread; its error is shown as a sentence and ends the rest."""
        turn = self._turns.next()
        self.status.setText(words)
        self.busy.show()
        for button in (self.file_button, self.folder_button):
            button.setEnabled(False)

        def done(answer: Any) -> None:
            if turn == self._turns.now:
                then(answer)

        def refused(sentence: str) -> None:
            if turn == self._turns.now:
                self._idle()
                notify.error(sentence)
                self._next()

        threads.run(what, done, refused)

    def _idle(self) -> None:
        self.busy.hide()
        for button in (self.file_button, self.folder_button):
            button.setEnabled(True)
