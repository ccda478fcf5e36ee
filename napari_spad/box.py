"""A box in a scan, drawn as a rectangle on any plane; pure model, no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_spad import grids
from napari_spad.view import PLANES, plane_of
from spad.volumes.axes import canonical_order

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from spad.volumes.volume import Volume

Intervals = tuple[tuple[int, int], tuple[int, int], tuple[int, int]]
"""First voxel and the one after the last, along S-I, A-P and R-L."""

NAME = "box"
_COLOR = "#ffd60a"
_LINE_MM = 1.5
_FAINT = 0.35


class Box:
    """A box in a scan, whose cross-section with the plane that is shown is a rectangle.

    The rectangle lies in a Shapes layer of its own and follows the slices; a person moves and
    resizes it, or draws another one, on any plane. Its opacity is low on slices beside the box.

    Args:
        viewer: the viewer.
        scan: the layer of the scan.
    """

    changed = Signal()
    removed = Signal()
    outside = Signal()
    """A rectangle was drawn beside the scan; the box is as it was."""

    def __init__(self, viewer: Viewer, scan: Layer) -> None:
        self._viewer = viewer
        self.scale = np.asarray(scan.scale, float)[-3:]
        self._start = np.asarray(scan.translate, float)[-3:]
        self.shape = tuple(int(n) for n in np.shape(scan.data)[scan.ndim - 3 : scan.ndim])
        self._unit = float(self.scale.max())
        self._busy = False
        self.intervals = self._middle()
        self.layer: Any = self._new_layer(scan)
        self._emitters = (viewer.dims.events.point, viewer.dims.events.order)
        for emitter in (*self._emitters, viewer.dims.events.ndisplay):
            emitter.connect(self._draw)
        self.layer.events.data.connect(self._edited)
        viewer.layers.events.removed.connect(self._layer_removed)
        self._draw()
        self.adjust()

    @property
    def through(self) -> int:
        """The axis that the slices that are shown lie along: 0 S-I, 1 A-P, 2 R-L."""
        return PLANES[plane_of(self._viewer) or "Axial"]

    @property
    def slice_shown(self) -> int:
        """The slice of the scan that is shown, or the nearest one."""
        at = round(float(self._place()))
        return min(max(at, 0), self.shape[self.through] - 1)

    def set_slices(self, first: int, last: int) -> None:
        """Say from which slice to which it reaches, along the axis that is shown."""
        self._set(self.through, first, last + 1)
        self._draw()

    def adjust(self) -> None:
        """Let a person move the rectangle and its corners."""
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = "select"
        if len(self.layer.data):
            self.layer.selected_data = {0}

    def draw_another(self) -> None:
        """Let a person draw another rectangle."""
        self._viewer.layers.selection.active = self.layer
        self.layer.mode = "add_rectangle"

    def rest(self) -> None:
        """Give the mouse back."""
        self.layer.selected_data = set()
        self.layer.mode = "pan_zoom"

    def close(self) -> None:
        """Remove it from the viewer."""
        for emitter in (*self._emitters, self._viewer.dims.events.ndisplay):
            emitter.disconnect(self._draw)
        self._viewer.layers.events.removed.disconnect(self._layer_removed)
        if self.layer in self._viewer.layers:
            self._viewer.layers.remove(self.layer)

    def _middle(self) -> Intervals:
        """Begin with the middle of the plane that is shown, on all slices."""
        middle = [(n // 4, max(n // 4 + 1, n - n // 4)) for n in self.shape]
        middle[self.through] = (0, self.shape[self.through])
        return middle[0], middle[1], middle[2]

    def _new_layer(self, scan: Layer) -> Any:
        grid = scan.metadata.get(grids.KEY) or {}
        # one size of voxel along all axes keeps the lines equally thick; the coarsest one leaves
        # the steps of napari's sliders alone
        return self._viewer.add_shapes(
            ndim=3,
            name=NAME,
            scale=[self._unit] * 3,
            translate=self._start,
            units=["mm"] * 3,
            axis_labels=list(grids.AXIS_LABELS),
            edge_color=_COLOR,
            face_color="transparent",
            edge_width=_LINE_MM / self._unit,
            metadata={grids.KEY: {"uuid": grid.get("uuid"), "role": "box"}},
        )

    def _set(self, axis: int, start: int, stop: int) -> None:
        pairs = list(self.intervals)
        pairs[axis] = (start, stop)
        self.intervals = pairs[0], pairs[1], pairs[2]

    def _draw(self, event: Any = None) -> None:
        """Show the cross-section on the slice that is shown, or the whole box in 3D."""
        if self._busy or self.layer.mode.startswith("add"):
            return
        selected = bool(self.layer.selected_data)
        self._busy = True
        try:
            faces, opacity = self._faces()
            self.layer.data = []
            self.layer.add_rectangles(
                faces,
                edge_width=_LINE_MM / self._unit,
                edge_color=_COLOR,
                face_color="transparent",
            )
            self.layer.opacity = opacity
            if selected and len(faces) == 1:
                self.layer.selected_data = {0}
        finally:
            self._busy = False

    def _faces(self) -> tuple[list[np.ndarray], float]:
        """Give rectangles (4, 3) in the layer's coordinates, and how strongly they are drawn."""
        low, high = (np.array([pair[end] for pair in self.intervals]) - 0.5 for end in (0, 1))
        if self._viewer.dims.ndisplay == 3:
            ends = [(axis, end[axis]) for axis in range(3) for end in (low, high)]
            return [self._rectangle(axis, at, low, high) for axis, at in ends], 1.0
        axis, at = self.through, self._place()
        inside = low[axis] <= at <= high[axis]
        return [self._rectangle(axis, at, low, high)], 1.0 if inside else _FAINT

    def _place(self) -> float:
        """Give where the plane that is shown lies, in voxels along its axis."""
        axis = self.through
        point = self._viewer.dims.point[self._viewer.dims.ndim - 3 + axis]
        return float((point - self._start[axis]) / self.scale[axis])

    def _rectangle(self, axis: int, at: float, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        first, second = (other for other in range(3) if other != axis)
        corners = np.full((4, 3), float(at))
        corners[:, first] = low[first], low[first], high[first], high[first]
        corners[:, second] = low[second], high[second], high[second], low[second]
        return corners * self.scale / self._unit

    def _edited(self, event: Any) -> None:
        """Take over what a person does to the rectangle, once napari is done with it."""
        from qtpy.QtCore import QTimer

        action = str(event.action)
        if not self._busy and action in ("added", "changed", "removed"):
            QTimer.singleShot(0, lambda: self._take_over(is_new=action == "added"))

    def _take_over(self, is_new: bool) -> None:
        if self.layer not in self._viewer.layers or self._viewer.dims.ndisplay == 3:
            return
        if len(self.layer.data):
            corners = np.asarray(self.layer.data[-1]) * self._unit / self.scale
            inside = self._take(corners, is_new)
            (self.changed if inside else self.outside).emit()
        if is_new:
            self.adjust()
        self._draw()

    def _take(self, corners: np.ndarray, is_new: bool) -> bool:
        """Read the box off a rectangle.

        Args:
            corners: (4, 3) in voxels of the scan.
            is_new: whether it was drawn; then the box reaches to its slice, too.

        Returns:
            Whether any of it lies in the scan; else nothing has changed.
        """
        start = np.rint(corners.min(axis=0) + 0.5).astype(int)
        stop = np.maximum(np.rint(corners.max(axis=0) + 0.5).astype(int), start + 1)
        start[self.through] = round(self._place())
        stop[self.through] = start[self.through] + 1
        start, stop = np.maximum(start, 0), np.minimum(stop, self.shape)
        if np.any(stop <= start):
            return False
        for axis in range(3):
            first, after = int(start[axis]), int(stop[axis])
            if axis == self.through:
                before = self.intervals[axis]
                first, after = min(first, before[0]), max(after, before[1])
            if is_new or axis != self.through:
                self._set(axis, first, after)
        return True

    def _layer_removed(self, event: Any) -> None:
        if event.value == self.layer:
            self.removed.emit()


def in_volume(box: Intervals, volume: Volume) -> Intervals:
    """Give a box along the spatial axes of `volume.array`.

    Args:
        box: along S-I, A-P and R-L.
        volume: the scan.
    """
    order, flips = canonical_order(volume.affine, depth_first=False)
    pairs = [(0, 0)] * 3
    for (start, stop), old, flip in zip(box, order, flips, strict=True):
        count = volume.spatial_shape[old]
        pairs[old] = (count - stop, count - start) if flip else (start, stop)
    return pairs[0], pairs[1], pairs[2]


def words(box: Intervals, scale: np.ndarray) -> str:
    """Say how large a box is: "120 x 90 x 200 mm"."""
    sides = [(stop - start) * step for (start, stop), step in zip(box, scale, strict=True)]
    return " x ".join(f"{side:.0f}" for side in sides) + " mm"
