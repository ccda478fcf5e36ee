"""The table of organs: what is seen, what is locked, what was measured, and how well it agrees."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QKeyEvent, QKeySequence, QPixmap
from qtpy.QtWidgets import (
    QAbstractItemView,
    QApplication,
    QHeaderView,
    QTableWidget,
    QTableWidgetItem,
)

from napari_spad import locks, visibility
from napari_spad.colors import colors_when_shown
from napari_spad.widgets import marks
from napari_spad.widgets.organs import compact, number
from spad.volumes.colors import readable

if TYPE_CHECKING:
    pass

NAME, SEEN, LOCKED, FIRST = 0, 1, 2, 3
_MARK_WIDTH = 24
_MARGIN = 11
_ROWS = 9


@dataclass(frozen=True)
class Column:
    """A column of figures.

    Attributes:
        key: among the figures of an organ.
        title: above it.
        tip: what it says on hovering.
        digits: after the point.
        of: "measures", "comparison" or "both": with which of them it is shown.
    """

    key: str
    title: str
    tip: str
    digits: int
    of: str

    def title_in(self, unit: str) -> str:
        """Give the title; that of the mean is the scan's unit, where it has one."""
        return unit if self.key == "mean" and unit else self.title


COLUMNS = (
    Column("volume_ml", "mL", "Volume in mL", 1, "both"),
    Column("mean", "mean", "Mean intensity of the scan in it", 0, "measures"),
    Column("sd", "SD", "Standard deviation of the scan's intensity in it", 0, "measures"),
    Column("diameter_mm", "Ø mm", "Largest diameter in mm, in any direction", 0, "measures"),
    Column(
        "slices", "slices", "Slices along the depth axis of the scan that it is on", 0, "measures"
    ),
    Column("dice", "Dice", "Overlap with the reference: 1 is perfect, 0 none", 3, "comparison"),
    Column(
        "hd95",
        "HD95 mm",
        "95 % of both surfaces lie within this distance of the other one",
        1,
        "comparison",
    ),
    Column(
        "difference_ml",
        "Δ mL",
        "Volume minus that of the reference, in mL",
        1,
        "comparison",
    ),
)


class OrganTable(QTableWidget):
    """Organs with colour, name, eye, lock and figures; sorted by a click on a title."""

    picked = Signal(int)
    """A person has selected the organ with this id."""
    changed = Signal()
    """What is visible or locked has changed."""

    def __init__(self) -> None:
        super().__init__(0, FIRST + len(COLUMNS))
        self._layer: Any = None
        self.unit = ""
        self.figures: dict[str, dict[str, Any]] = {}
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setShowGrid(False)
        self.setWordWrap(False)
        compact(self)
        for at in range(SEEN, self.columnCount()):
            self._header.setSectionResizeMode(at, QHeaderView.ResizeMode.Fixed)
        self._eyes, self._locks = marks.eyes(self), marks.locks(self)
        self.setItemDelegateForColumn(SEEN, self._eyes)
        self.setItemDelegateForColumn(LOCKED, self._locks)
        self._set_titles()
        self._header.setSortIndicator(-1, Qt.SortOrder.AscendingOrder)
        self._fit_columns()
        self.show_comparison(False)
        self.setMinimumHeight(26 + 22 * _ROWS)
        self.itemSelectionChanged.connect(self._tell)
        self.itemChanged.connect(self._marked)

    def show_organs(self, figures: dict[str, dict[str, Any]], unit: str, layer: Any) -> None:
        """Fill the table.

        Args:
            figures: NAME to id (0 for what only the reference has) and the keys of `COLUMNS`; a
                key may be missing or None.
            unit: the scan's unit, "HU" or "".
            layer: the labels, whose colours, hidden and locked ones are shown; None with none.
        """
        self._layer, self.unit, self.figures = layer, unit, figures
        selected = self.selected
        self.blockSignals(True)
        self.setSortingEnabled(False)
        self.clearSelection()
        self._set_titles()
        self.setRowCount(len(figures))
        for row, (name, one) in enumerate(figures.items()):
            self._fill(row, name, one)
        self.setSortingEnabled(True)
        self._fit_columns()
        self.blockSignals(False)
        if selected:
            self.highlight(selected)

    def show_comparison(self, on: bool) -> None:
        """Show the figures of a comparison with a reference in the place of the measures."""
        for at, column in enumerate(COLUMNS, FIRST):
            self.setColumnHidden(at, column.of not in ("both", "comparison" if on else "measures"))

    def highlight(self, label: int) -> None:
        """Select an organ's row without telling."""
        self.blockSignals(True)
        rows = [row for row in range(self.rowCount()) if label and self._id(row) == label]
        if rows:
            self.selectRow(rows[0])
            self.scrollToItem(self.item(rows[0], NAME))
        else:
            self.clearSelection()
        self.blockSignals(False)

    @property
    def selected(self) -> int | None:
        """The id of the selected organ, or None."""
        rows = {item.row() for item in self.selectedItems()}
        return (self._id(rows.pop()) or None) if rows else None

    @property
    def ids(self) -> list[int]:
        """The ids of all organs that the labels have."""
        return [int(one["id"]) for one in self.figures.values() if one["id"]]

    def show_only(self, label: int | None) -> None:
        """Hide all organs but one; None shows all."""
        gone = [] if label is None else [one for one in self.ids if one != label]
        visibility.hide(self._layer, gone, self.ids)
        self._refresh_marks()
        self.changed.emit()

    def text(self) -> str:
        """Give what is shown as lines with tabs, for a spreadsheet."""
        shown = [at for at in range(self.columnCount()) if not self.isColumnHidden(at)]
        shown = [at for at in shown if at not in (SEEN, LOCKED)]
        titles = [self._title(at).text() for at in shown]
        cells = ([self._cell(row, at).text() for at in shown] for row in range(self.rowCount()))
        return "\n".join("\t".join(line).replace("\u2009", "") for line in [titles, *cells])

    def keyPressEvent(self, event: QKeyEvent | None) -> None:
        if event is not None and event.matches(QKeySequence.StandardKey.Copy):
            clipboard = QApplication.clipboard()
            assert clipboard is not None
            clipboard.setText(self.text())
            return
        super().keyPressEvent(event)

    def _set_titles(self) -> None:
        titles = ["Organ", "", "", *(column.title_in(self.unit) for column in COLUMNS)]
        self.setHorizontalHeaderLabels(titles)
        tips = ["", "Whether it is shown, in slices and in 3D", _LOCK_TIP]
        tips += [column.tip for column in COLUMNS]
        for at, tip in enumerate(tips):
            self._title(at).setToolTip(tip or "A click on a title sorts")
        for at, icon in ((SEEN, "visibility"), (LOCKED, "lock")):
            self._title(at).setIcon(QIcon(marks.pixmap(icon, marks.FAINT)))
            self.setColumnWidth(at, _MARK_WIDTH)

    def _fit_columns(self) -> None:
        """Make the figures' columns as wide as their words; Qt would leave room for an arrow."""
        for at in range(FIRST, self.columnCount()):
            shown = [self._title(at), *(self._cell(row, at) for row in range(self.rowCount()))]
            widest = max(self.fontMetrics().horizontalAdvance(one.text()) for one in shown)
            self.setColumnWidth(at, widest + _MARGIN)

    def _fill(self, row: int, name: str, figures: Mapping[str, Any]) -> None:
        label = int(figures["id"])
        cell = QTableWidgetItem(self._swatch(label), readable(name))
        cell.setData(Qt.ItemDataRole.UserRole, label)
        cell.setToolTip(readable(name) if label else f"{readable(name)}: only in the reference")
        self.setItem(row, NAME, cell)
        for at in (SEEN, LOCKED):
            self.setItem(row, at, self._mark_cell(at, label))
        for at, column in enumerate(COLUMNS, FIRST):
            self.setItem(row, at, FigureItem(figures.get(column.key), column.digits))

    def _mark_cell(self, at: int, label: int) -> QTableWidgetItem:
        if not label:
            return QTableWidgetItem()
        if at == SEEN:
            seen = label not in visibility.hidden(self._layer)
            return marks.check_cell(seen, "Show or hide it")
        return marks.check_cell(label in locks.locked(self._layer), _LOCK_TIP)

    def _refresh_marks(self) -> None:
        self.blockSignals(True)
        hidden = visibility.hidden(self._layer)
        for row in range(self.rowCount()):
            if label := self._id(row):
                state = Qt.CheckState.Unchecked if label in hidden else Qt.CheckState.Checked
                self._cell(row, SEEN).setCheckState(state)
        self.blockSignals(False)
        self.update()

    def _marked(self, item: QTableWidgetItem) -> None:
        """A person has clicked an eye or a lock."""
        if item.column() not in (SEEN, LOCKED) or self._layer is None:
            return
        label, on = self._id(item.row()), item.checkState() == Qt.CheckState.Checked
        if item.column() == SEEN:
            gone = visibility.hidden(self._layer)
            visibility.hide(self._layer, gone - {label} if on else gone | {label}, self.ids)
        else:
            fixed = locks.locked(self._layer)
            locks.lock(self._layer, fixed | {label} if on else fixed - {label})
        self.changed.emit()

    @property
    def _header(self) -> QHeaderView:
        header = self.horizontalHeader()
        assert header is not None
        return header

    def _title(self, at: int) -> QTableWidgetItem:
        title = self.horizontalHeaderItem(at)
        assert title is not None
        return title

    def _cell(self, row: int, at: int) -> QTableWidgetItem:
        cell = self.item(row, at)
        assert cell is not None
        return cell

    def _id(self, row: int) -> int:
        return int(self._cell(row, NAME).data(Qt.ItemDataRole.UserRole))

    def _tell(self) -> None:
        if self.selected is not None:
            self.picked.emit(self.selected)

    def _swatch(self, label: int) -> QIcon:
        square = QPixmap(14, 14)
        square.fill(QColor(0, 0, 0, 0))
        if label:
            colormap = colors_when_shown(
                {"metadata": self._layer.metadata, "colormap": self._layer.colormap}
            )
            square.fill(QColor.fromRgbF(*(float(channel) for channel in colormap.map(label))))
        return QIcon(square)


class FigureItem(QTableWidgetItem):
    """A figure that sorts as a number; one that is missing goes last."""

    def __init__(self, value: float | None, digits: int) -> None:
        super().__init__(number(value, digits))
        self.value = math.inf if value is None else float(value)
        self.setTextAlignment(Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter)

    def __lt__(self, other: QTableWidgetItem) -> bool:
        return self.value < getattr(other, "value", math.inf)


_LOCK_TIP = "Locked: neither painting nor a model changes where it is"
