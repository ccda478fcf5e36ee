"""The list of training runs, with what can be done with the chosen one."""

from __future__ import annotations

from pathlib import Path

from qtpy.QtCore import Signal
from qtpy.QtWidgets import (
    QAbstractItemView,
    QFileDialog,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QWidget,
)

from napari_spad import notify
from napari_spad.widgets.forms import column, row, text
from napari_spad.widgets.organs import compact
from spad.training import runs

_MOST_ROWS = 4
_WORDS = ["Run", "State", "Step"]


class RunList(QWidget):
    """Runs in a folder, and runs elsewhere that a person attached."""

    chosen = Signal(object)
    stop = Signal(object)
    resume = Signal(object)
    discard = Signal(object)

    def __init__(self) -> None:
        super().__init__()
        self._paths: list[Path] = []
        self._elsewhere: list[Path] = []
        self._infos: dict[Path, runs.RunInfo] = {}
        self._expected: Path | None = None
        self.table = QTableWidget(0, len(_WORDS))
        self.message = text(faint=True)
        self._set_up_table()
        self.stop_button = QPushButton("Stop")
        self.resume_button = QPushButton("Resume")
        self.discard_button = QPushButton("Delete")
        self.attach_button = QPushButton("Attach ...")
        self.table.hide()
        self.attach_button.setToolTip("Watch a run in another folder")
        for button, signal in (
            (self.stop_button, self.stop),
            (self.resume_button, self.resume),
            (self.discard_button, self.discard),
        ):
            button.clicked.connect(lambda _, signal=signal: signal.emit(self.run))
        self.attach_button.clicked.connect(self._attach)
        layout = column(self, bare=True)
        layout.addWidget(self.table)
        layout.addWidget(self.message)
        layout.addLayout(
            row(self.stop_button, self.resume_button, self.discard_button, self.attach_button)
        )
        self._enable()

    def _set_up_table(self) -> None:
        self.table.setHorizontalHeaderLabels(_WORDS)
        self.table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.table.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.table.setShowGrid(False)
        compact(self.table)
        self.table.itemSelectionChanged.connect(self._selected)

    @property
    def run(self) -> Path | None:
        """The chosen run, or None."""
        index = self.table.currentRow()
        return self._paths[index] if 0 <= index < len(self._paths) else None

    def state_of(self, run: Path | None) -> str:
        """Say how a listed run stands; "" for one that is not listed."""
        return self._infos[run].state.state if run in self._infos else ""

    def expect(self, run: Path) -> None:
        """Choose a run as soon as its folder is there."""
        self._expected = run

    def refresh(self, folder: Path) -> None:
        """Read how the runs stand now."""
        infos = runs.list_runs(folder)
        for path in self._elsewhere:
            infos += runs.list_runs(path)
        before = self.run
        paths = [info.path for info in infos]
        if self._expected in paths:
            before, self._expected = self._expected, None
        changed = self.run != before
        self._infos = {info.path: info for info in infos}
        self.table.blockSignals(True)
        if paths != self._paths:
            self._paths = paths
            self.table.setRowCount(len(paths))
        for index, info in enumerate(infos):
            words = (info.path.name, info.state.state, str(info.state.step))
            for place, word in enumerate(words):
                self._write(index, place, word)
        if before in paths:
            self.table.selectRow(paths.index(before))
        self.table.blockSignals(False)
        self.table.setVisible(bool(paths))
        self.table.setFixedHeight(26 + 22 * min(len(paths), _MOST_ROWS) + 4)
        self._enable()
        if changed:
            self.chosen.emit(self.run)

    def _write(self, index: int, place: int, word: str) -> None:
        item = self.table.item(index, place)
        if item is None:
            item = QTableWidgetItem(word)
            self.table.setItem(index, place, item)
        elif item.text() != word:
            item.setText(word)
        item.setToolTip(str(self._paths[index]))

    def _selected(self) -> None:
        self._enable()
        self.chosen.emit(self.run)

    def _enable(self) -> None:
        info = self._infos.get(self.run) if self.run is not None else None
        state = "" if info is None else info.state.state
        # what a run says while it goes on is its last step, which is told elsewhere
        self.message.setText("" if info is None or state == "running" else info.state.message)
        self.message.setVisible(bool(self.message.text()))
        none = "Choose a run first."
        for button in (self.stop_button, self.resume_button, self.discard_button):
            button.setVisible(bool(self._paths))
        self._set(self.stop_button, state == "running", none if not state else f"It is {state}.")
        can_resume = state in ("stopped", "failed")
        self._set(self.resume_button, can_resume, none if not state else f"It is {state}.")
        can_go = state not in ("", "running")
        why_not = none if not state else "It is running: stop it first."
        self._set(self.discard_button, can_go, why_not, "Move this run to the trash")

    def _set(self, button: QPushButton, enabled: bool, why_not: str, what: str = "") -> None:
        button.setEnabled(enabled)
        button.setToolTip(what if enabled else why_not)

    def _attach(self) -> None:
        path = QFileDialog.getExistingDirectory(self, "The folder of a run, or of runs")
        if path:
            self.attach(Path(path))

    def attach(self, path: Path) -> None:
        """List a run that lies elsewhere, or all runs of a folder."""
        found = runs.list_runs(path)
        if not found:
            notify.error(f"{path} holds no training run; choose the folder of a run.")
            return
        if path not in self._elsewhere:
            self._elsewhere.append(path)
        self.expect(found[0].path)
