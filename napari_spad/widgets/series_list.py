"""The list of series in a folder, to choose from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor
from qtpy.QtWidgets import (
    QAbstractItemView,
    QDialog,
    QDialogButtonBox,
    QHeaderView,
    QPushButton,
    QTableWidget,
    QTableWidgetItem,
    QVBoxLayout,
    QWidget,
)

from napari_spad.widgets.forms import FAINT, text

if TYPE_CHECKING:
    from spad.volumes.files.series import Series

COLUMNS = ("Series", "Modality", "Slices", "Size", "Spacing (mm)", "")
_WIDTH, _ROW, _MOST_ROWS, _GAP = 900, 26, 14, 16


class SeriesDialog(QDialog):
    """Shows what a folder holds; tells by `chosen` what a person wants to open."""

    chosen = Signal(list)

    def __init__(self, path: str, series: list[Series], parent: QWidget | None = None) -> None:
        super().__init__(parent)
        self._series = list(series)
        self.setWindowTitle(f"{Path(path).name or path} holds {len(series)} series")
        self.hint = text("Choose one or several (Ctrl or Shift and click), or double-click one.")
        self.table = self._make_table()
        self.reason = text(faint=True)
        self.buttons = QDialogButtonBox(QDialogButtonBox.StandardButton.Cancel)
        self.open_button = QPushButton("Open")
        self.buttons.addButton(self.open_button, QDialogButtonBox.ButtonRole.AcceptRole)
        layout = QVBoxLayout(self)
        for widget in (self.hint, self.table, self.reason, self.buttons):
            layout.addWidget(widget)
        self.buttons.accepted.connect(self.accept)
        self.buttons.rejected.connect(self.reject)
        self.table.itemSelectionChanged.connect(self._selected)
        self.table.itemDoubleClicked.connect(self._double_clicked)
        self.resize(_WIDTH, 150 + _ROW * min(_MOST_ROWS, len(series) + 1))
        self._select_first()
        self._selected()

    @property
    def selection(self) -> list[Series]:
        """The selected series that can be opened, in the order of the list."""
        model = self.table.selectionModel()
        rows = sorted({index.row() for index in model.selectedRows()}) if model else []
        return [self._series[row] for row in rows if not self._series[row].problem]

    def accept(self) -> None:
        """Open what is selected."""
        found = self.selection
        if found:
            super().accept()
            self.chosen.emit(found)

    def _make_table(self) -> QTableWidget:
        table = QTableWidget(len(self._series), len(COLUMNS))
        table.setHorizontalHeaderLabels(list(COLUMNS))
        table.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        table.setSelectionMode(QAbstractItemView.SelectionMode.ExtendedSelection)
        table.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        table.setShowGrid(False)
        table.setWordWrap(False)
        side, header = table.verticalHeader(), table.horizontalHeader()
        assert side is not None
        assert header is not None
        side.setVisible(False)
        side.setDefaultSectionSize(_ROW)
        header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)
        for row, one in enumerate(self._series):
            for column, words in enumerate(row_words(one)):
                item = QTableWidgetItem(words)
                item.setToolTip(one.problem or one.path)
                if one.problem:
                    item.setForeground(QColor(FAINT))
                if column in (2, 3, 4):
                    item.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                table.setItem(row, column, item)
        for column in range(1, len(COLUMNS)):
            table.resizeColumnToContents(column)
            table.setColumnWidth(column, table.columnWidth(column) + _GAP)
        return table

    def _select_first(self) -> None:
        good = [row for row, one in enumerate(self._series) if not one.problem]
        if good:
            self.table.selectRow(good[0])

    def _selected(self) -> None:
        model = self.table.selectionModel()
        rows = [index.row() for index in model.selectedRows()] if model else []
        problems = [self._series[row].problem for row in rows if self._series[row].problem]
        self.reason.setText(str(problems[0]) if problems else "")
        count = len(self.selection)
        self.open_button.setEnabled(count > 0)
        self.open_button.setText(f"Open {count} series" if count > 1 else "Open")
        self.open_button.setToolTip("" if count else "Select a series that can be opened.")

    def _double_clicked(self, item: QTableWidgetItem) -> None:
        one = self._series[item.row()]
        if not one.problem:
            super().accept()
            self.chosen.emit([one])


def row_words(series: Series) -> tuple[str, ...]:
    """Put a series into words, one for each of `COLUMNS`."""
    kind = " (labels)" if series.kind == "labels" else ""
    return (
        f"{series.description}{kind}",
        series.modality or "?",
        str(series.slices),
        " × ".join(str(n) for n in series.shape),
        " × ".join(f"{step:.3g}" for step in series.spacing),
        "cannot be opened" if series.problem else "",
    )
