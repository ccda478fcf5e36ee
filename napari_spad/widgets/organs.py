"""Choosing an organ by a click in the canvas, and how tables look."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

import numpy as np
from qtpy.QtWidgets import QHeaderView, QTableWidget

from napari_spad.visibility import hidden

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

_STILL_PIXELS = 4.0


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
    """Give the label under the mouse, on a slice or as seen in 3D; 0 where none is shown."""
    if not layer.visible:
        return 0
    where = {
        "position": event.position,
        "view_direction": event.view_direction,
        "dims_displayed": event.dims_displayed,
        "world": True,
    }
    value = layer.get_value(**where)
    gone = hidden(layer)
    if value is None or int(value) not in gone:
        return 0 if value is None else int(value)
    if len(event.dims_displayed) < 3 or layer.ndim > 3:
        return 0
    start, end = layer.get_ray_intersections(**where)
    return _first_on_ray(layer, start, end, gone)


def _first_on_ray(layer: Labels, start: Any, end: Any, gone: set[int]) -> int:
    """Give the first label on a way through the voxels that is not among the hidden ones."""
    if start is None or end is None:
        return 0
    steps = int(np.ceil(2 * np.linalg.norm(end - start))) + 1
    index = np.rint(np.linspace(start, end, steps)).astype(int)
    index = np.clip(index, 0, np.array(layer.data.shape) - 1)
    values = np.asarray(layer.data)[tuple(index.T)]
    seen = values[(values != 0) & ~np.isin(values, list(gone))]
    return int(seen[0]) if seen.size else 0


def number(value: float | None, digits: int) -> str:
    """Write a number with thin thousands, "-" where there is none."""
    return "-" if value is None else f"{value:,.{digits}f}".replace(",", "\u2009")
