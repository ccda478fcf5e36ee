"""Check boxes of a table that are drawn as an eye or a lock."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qtpy.QtCore import QEvent, Qt
from qtpy.QtGui import QColor, QIcon, QPainter, QPixmap
from qtpy.QtWidgets import QStyledItemDelegate, QTableWidgetItem

from napari_spad.widgets.forms import FAINT

if TYPE_CHECKING:
    from qtpy.QtCore import QModelIndex
    from qtpy.QtWidgets import QStyleOptionViewItem, QWidget

_SIZE = 15
_WEAK = 0.45
ON_COLOR = "#e08a1e"
"""Amber that stands out on napari's dark and light backgrounds."""


class MarkDelegate(QStyledItemDelegate):
    """Draws a check state as one of two icons; a click anywhere in the cell changes it.

    Args:
        parent: the table.
        on: napari's icon for a checked cell, and its colour.
        off: the same for others, drawn weakly.
    """

    def __init__(self, parent: QWidget, on: tuple[str, str], off: tuple[str, str]) -> None:
        super().__init__(parent)
        self._icons = {True: pixmap(*on), False: pixmap(*off)}

    def paint(
        self, painter: QPainter | None, option: QStyleOptionViewItem, index: QModelIndex
    ) -> None:
        state = index.data(Qt.ItemDataRole.CheckStateRole)
        if painter is None:
            return
        if state is None:
            super().paint(painter, option, index)
            return
        on = Qt.CheckState(state) == Qt.CheckState.Checked
        shown = self._icons[on]
        corner = option.rect.center() - shown.rect().center()
        painter.save()
        painter.setOpacity(1.0 if on else _WEAK)
        painter.drawPixmap(corner, shown)
        painter.restore()

    def editorEvent(
        self, event: QEvent | None, model: Any, option: QStyleOptionViewItem, index: QModelIndex
    ) -> bool:
        if event is None or index.data(Qt.ItemDataRole.CheckStateRole) is None:
            return False
        if event.type() != QEvent.Type.MouseButtonRelease:
            return event.type() == QEvent.Type.MouseButtonDblClick
        on = Qt.CheckState(index.data(Qt.ItemDataRole.CheckStateRole)) == Qt.CheckState.Checked
        state = Qt.CheckState.Unchecked if on else Qt.CheckState.Checked
        return bool(model.setData(index, state, Qt.ItemDataRole.CheckStateRole))


def eyes(table: QWidget) -> MarkDelegate:
    """Make the delegate of a column of what is visible."""
    return MarkDelegate(table, ("visibility", FAINT), ("visibility_off", FAINT))


def locks(table: QWidget) -> MarkDelegate:
    """Make the delegate of a column of what is locked."""
    return MarkDelegate(table, ("lock", ON_COLOR), ("lock_open", FAINT))


def check_cell(checked: bool, tip: str) -> QTableWidgetItem:
    """Make a cell for such a column."""
    cell = MarkItem()
    cell.setFlags(Qt.ItemFlag.ItemIsEnabled | Qt.ItemFlag.ItemIsUserCheckable)
    cell.setCheckState(Qt.CheckState.Checked if checked else Qt.CheckState.Unchecked)
    cell.setToolTip(tip)
    return cell


class MarkItem(QTableWidgetItem):
    """A cell that sorts by whether it is checked."""

    def __lt__(self, other: QTableWidgetItem) -> bool:
        one, two = (int(item.checkState() == Qt.CheckState.Checked) for item in (self, other))
        return one < two


def pixmap(name: str, color: str) -> QPixmap:
    """Give one of napari's icons in a colour."""
    from napari.resources import ICONS

    shape = QIcon(ICONS[name]).pixmap(_SIZE, _SIZE)
    painter = QPainter(shape)
    painter.setCompositionMode(QPainter.CompositionMode.CompositionMode_SourceIn)
    painter.fillRect(shape.rect(), QColor(color))
    painter.end()
    return shape
