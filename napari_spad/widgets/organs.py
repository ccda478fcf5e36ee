"""The table of organs, and choosing one by a click in the canvas."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtCore import Qt, Signal
from qtpy.QtGui import QColor, QIcon, QPixmap
from qtpy.QtWidgets import QAbstractItemView, QHeaderView, QTableWidget, QTableWidgetItem

from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

_STILL_PIXELS = 4.0


class OrganTable(QTableWidget):
    """Organ, volume in mL, mean intensity; a row that a person selects is told by `picked`."""

    picked = Signal(int)

    def __init__(self) -> None:
        super().__init__(0, 3)
        self._ids: list[int] = []
        self.setSelectionBehavior(QAbstractItemView.SelectionBehavior.SelectRows)
        self.setSelectionMode(QAbstractItemView.SelectionMode.SingleSelection)
        self.setEditTriggers(QAbstractItemView.EditTrigger.NoEditTriggers)
        self.setHorizontalHeaderLabels(["Organ", "mL", "mean"])
        self.setShowGrid(False)
        compact(self)
        self.itemSelectionChanged.connect(self._tell)

    def show_organs(self, labels: dict[str, dict[str, Any]], unit: str, layer: Labels) -> None:
        """Fill the table.

        Args:
            labels: NAME to id, volume_ml, mean and sd, as reports have it.
            unit: the scan's unit, "HU" or "".
            layer: the labels, whose colours are shown.
        """
        self.blockSignals(True)
        self.clearSelection()
        self.setHorizontalHeaderLabels(["Organ", "mL", f"mean {unit}".strip()])
        self.setRowCount(len(labels))
        self._ids = []
        for index, (name, figures) in enumerate(labels.items()):
            self._ids.append(int(figures["id"]))
            swatch = QTableWidgetItem(_swatch(layer.get_color(figures["id"])), readable(name))
            spread = figures.get("sd")
            mean = number(figures.get("mean"), 0)
            item = QTableWidgetItem(mean)
            if spread is not None:
                item.setToolTip(f"{mean} ± {number(spread, 0)} {unit}".strip())
            cells = (swatch, QTableWidgetItem(number(figures.get("volume_ml"), 1)), item)
            for place, cell in enumerate(cells):
                if place:
                    cell.setTextAlignment(
                        Qt.AlignmentFlag.AlignRight | Qt.AlignmentFlag.AlignVCenter
                    )
                self.setItem(index, place, cell)
        self.blockSignals(False)

    def highlight(self, label: int) -> None:
        """Select an organ's row without telling."""
        self.blockSignals(True)
        if label in self._ids:
            self.selectRow(self._ids.index(label))
            self.scrollToItem(self.item(self._ids.index(label), 0))
        else:
            self.clearSelection()
        self.blockSignals(False)

    @property
    def selected(self) -> int | None:
        """The id of the selected organ, or None."""
        items = self.selectedItems()
        return self._ids[items[0].row()] if items else None

    def _tell(self) -> None:
        if self.selected is not None:
            self.picked.emit(self.selected)


class Clicks:
    """Tells of clicks in the canvas; dragging and painting tell nothing.

    Args:
        viewer: the viewer whose canvas is clicked.
        tell: called with napari's mouse event.
    """

    def __init__(self, viewer: Viewer, tell: Callable[[Any], None]) -> None:
        self._tell = tell
        self._callbacks = viewer.mouse_drag_callbacks
        self._callbacks.append(self._press)

    def stop(self) -> None:
        """Listen no more."""
        if self._press in self._callbacks:
            self._callbacks.remove(self._press)

    def _press(self, viewer: Any, event: Any) -> Generator[None, None, None]:
        start = np.array(event.pos)
        yield
        while event.type == "mouse_move":
            yield
        moved = np.linalg.norm(np.array(event.pos) - start)
        active = viewer.layers.selection.active
        painting = active is not None and str(active.mode) not in ("pan_zoom", "transform")
        if event.button == 1 and moved <= _STILL_PIXELS and not painting:
            self._tell(event)


class ClickPicker(Clicks):
    """Tells which label a person clicks on.

    Args:
        viewer: the viewer whose canvas is clicked.
        layer: gives the labels layer in question, or None.
        tell: called with the id of the label, 0 for background.
    """

    def __init__(
        self, viewer: Viewer, layer: Callable[[], Any], tell: Callable[[int], None]
    ) -> None:
        def clicked(event: Any) -> None:
            labels = layer()
            if labels is not None:
                tell(label_at(labels, event))

        super().__init__(viewer, clicked)


def compact(table: QTableWidget) -> None:
    """Let the first column of a table take the room that is left, in low rows."""
    header, side = table.horizontalHeader(), table.verticalHeader()
    assert header is not None
    assert side is not None
    side.setVisible(False)
    side.setDefaultSectionSize(22)
    header.setSectionResizeMode(QHeaderView.ResizeMode.ResizeToContents)
    header.setSectionResizeMode(0, QHeaderView.ResizeMode.Stretch)


def label_at(layer: Labels, event: Any) -> int:
    """Give the label under the mouse, on a slice or as seen in 3D; 0 where there is none."""
    if not layer.visible:
        return 0
    value = layer.get_value(
        event.position,
        view_direction=event.view_direction,
        dims_displayed=event.dims_displayed,
        world=True,
    )
    return 0 if value is None else int(value)


def number(value: float | None, digits: int) -> str:
    """Write a number with thin thousands, "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}".replace(",", "\u2009")


def _swatch(color: Any) -> QIcon:
    pixmap = QPixmap(14, 14)
    rgba = (0, 0, 0, 0) if color is None else color
    pixmap.fill(QColor.fromRgbF(*(float(channel) for channel in rgba)))
    return QIcon(pixmap)
