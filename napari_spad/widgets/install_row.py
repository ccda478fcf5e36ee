"""A name and a button: the best model of a run becomes one that the docks offer."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtWidgets import QLabel, QLineEdit, QPushButton, QWidget

from napari_spad import training_jobs
from napari_spad.widgets.forms import MAIN, column, row, text
from napari_spad.widgets.notices import notices
from spad.errors import SpadError
from spad.training import runs

_OFFERED_IN = {"segmenter": "Segment", "tokenizer": "Tokenizer", "mim": "Masking"}


class InstallRow(QWidget):
    """Installs the model of the run that is shown."""

    def __init__(self) -> None:
        super().__init__()
        self._run: Path | None = None
        self.name = QLineEdit()
        self.name.setToolTip("What the docks and 'spad models list' call it")
        self.button = QPushButton("Install")
        self.button.setToolTip("Copy the run's best model, so that the docks offer it")
        self.words = text(faint=True)
        self.words.hide()
        layout = column(self, bare=True)
        fields = row(QLabel("Install as"), self.name, self.button)
        fields.setStretch(1, 1)
        layout.addLayout(fields)
        layout.addWidget(self.words)
        self.button.clicked.connect(self.install)
        self.name.returnPressed.connect(self.install)

    def show_run(self, run: Path | None, state: str = "") -> None:
        """Offer to install the model of a run, once it has one; at its end that is the next step.

        Args:
            run: the run that is shown, or None.
            state: how it stands.
        """
        has_model = run is not None and bool(runs.checkpoint_steps(run))
        self.setVisible(has_model)
        self.button.setStyleSheet(MAIN if state == "finished" else "")
        if run == self._run or not has_model:
            return
        self._run = run
        assert run is not None
        self._say("")
        self.name.setText(training_jobs.free_name(_kind_of(run)))

    def install(self) -> None:
        """Copy the run's best model under the name that is shown."""
        from spad.checkpoints import zoo

        if self._run is None:
            return
        try:
            entry = zoo.install(self._run, self.name.text().strip())
        except SpadError as error:
            self._say(str(error))
            return
        where = _OFFERED_IN[entry.kind]
        self._say(f"{entry.name} is installed: the {where} dock offers it now.")
        notices.models_changed.emit()

    def _say(self, words: str) -> None:
        self.words.setText(words)
        self.words.setVisible(bool(words))


def _kind_of(run: Path) -> str:
    return training_jobs.KINDS.get(training_jobs.task_of(run), "segmenter")
