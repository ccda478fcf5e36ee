"""A table that is only looked at: a name in each row, and figures."""

from __future__ import annotations

from collections.abc import Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QTableWidget, QTableWidgetItem

from napari_spad.widgets.organs import compact

_MOST_ROWS = 14


class FigureTable(QTableWidget):
    """As high as its rows, up to a limit."""

    def __init__(self, columns: int) -> None:
        super().__init__(0, columns)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setSelectionMode(QAbstractItemView.SelectionMode.NoSelection)
        self.setShowGrid(False)
        compact(self)

    def fill(self, rows: Sequence[Sequence[str]]) -> None:
        """Show rows of a name and figures; figures stand on the right."""
        self.setRowCount(len(rows))
        for line, cells in enumerate(rows):
            for place, words in enumerate(cells):
                cell = QTableWidgetItem(words)
                if place:
                    side = Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    cell.setTextAlignment(side)
                self.setItem(line, place, cell)
        self.setFixedHeight(26 + 22 * min(len(rows), _MOST_ROWS) + 4)
