"""The table of the cases of a queue."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from qtpy.QtCore import Qt
from qtpy.QtWidgets import QAbstractItemView, QTableWidget, QTableWidgetItem

from napari_spad.case_queue import Case
from napari_spad.widgets.organs import compact

_COLUMNS = ("Case", "State", "Uncertainty")
_MEANING = (
    "<p>How unsure the model is of the organs that it finds: 0 is sure; the larger, the sooner a "
    "person should look.</p><p>It is the entropy of its answer, in nats, averaged over the organs; "
    "compare scans of the same kind.</p><p>'Least sure first' rates all open cases.</p>"
)


class CaseTable(QTableWidget):
    """Shows cases, the open one bold; a case that could not be rated has a '?' that says why."""

    def __init__(self) -> None:
        super().__init__(0, len(_COLUMNS))
        for at, words in enumerate(_COLUMNS):
            head = QTableWidgetItem(words)
            head.setToolTip(_MEANING if words == "Uncertainty" else "")
            self.setHorizontalHeaderItem(at, head)
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        compact(self)
        self._names: list[str] = []

    @property
    def picked(self) -> str:
        """The name of the case that is selected; "" for none."""
        line = self.currentRow()
        return self._names[line] if 0 <= line < len(self._names) else ""

    def show_cases(self, cases: Sequence[Case], here: str, reasons: Mapping[str, str]) -> None:
        """Fill the table.

        Args:
            cases: in their order.
            here: the name of the open one, "" for none.
            reasons: why a case could not be rated, by its name.
        """
        self._names = [case.name for case in cases]
        self.setRowCount(len(cases))
        for line, case in enumerate(cases):
            opens = f"{case.path}: press Enter or double-click to open it"
            doubt = "" if case.uncertainty is None else f"{case.uncertainty:.3f}"
            why = opens
            if not doubt and case.name in reasons:
                doubt, why = "?", f"<p>{html.escape(reasons[case.name])}</p>"
            tips = (opens, opens, why)
            for at, words in enumerate((case.name, case.state, doubt)):
                cell = QTableWidgetItem(words)
                cell.setToolTip(tips[at])
                font = cell.font()
                font.setBold(case.name == here)
                cell.setFont(font)
                if at == len(_COLUMNS) - 1:
                    middle = Qt.AlignmentFlag.AlignVCenter
                    cell.setTextAlignment(Qt.AlignmentFlag.AlignRight | middle)
                self.setItem(line, at, cell)
        self.pick(here)

    def pick(self, name: str) -> None:
        """Select a case, if it is there."""
        if name in self._names:
            self.selectRow(self._names.index(name))

    def scrolled_to(self) -> int:
        """Say how far down it is scrolled."""
        bar = self.verticalScrollBar()
        return 0 if bar is None else bar.value()

    def scroll_to(self, place: int) -> None:
        """Scroll to where `scrolled_to` was."""
        bar = self.verticalScrollBar()
        if bar is not None:
            bar.setValue(place)
