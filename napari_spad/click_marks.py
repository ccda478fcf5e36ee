"""The marks of the active object's prompts, and the first, coarser answer to a click."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_spad import grids
from napari_spad.organ_layers import itself

if TYPE_CHECKING:
    from napari import Viewer

    from napari_spad.turned import Turned
    from spad.prompts.part import Part
    from spad.prompts.prompt import Prompt

POINTS, LINES, PREVIEW = "prompts", "drawn prompts", "first answer"
ROLE = "prompts"
_ADDS, _TAKES, _DOUBT = "#31d843", "#ff3b30", "#ffd60a"
_NEAR_PIXELS = 9.0
_LINE_MM = 1.2
_MOST_DRAWN = 1000
_FAR = 10_000.0
"""Where the corner of the scan is in the layers: napari draws a dot at their zero on a slice that
has no point, which is to lie out of sight."""


class ClickMarks:
    """Points (green adds, red takes away), and lines for scribbles, boxes and lassos.

    The points may be dragged and deleted with napari's own tools, too.

    Args:
        viewer: the viewer.
        scan: the layer of the scan.
        turned: how the voxels of prompts lie in it.
    """

    moved = Signal(int, object)
    """A prompt was dragged: its number and the index of the layer where it is now."""
    deleted = Signal(object)
    """Prompts were deleted: their numbers."""
    added = Signal(object)
    """A point was added with napari's tool: the index of the layer."""

    def __init__(self, viewer: Viewer, scan: Any, turned: Turned) -> None:
        self._viewer, self._turned = viewer, turned
        self.scale = np.asarray(scan.scale, float)[-3:]
        self._start = np.asarray(scan.translate, float)[-3:]
        # one size of voxel along all axes keeps marks round; the coarsest leaves sliders alone
        self._unit = float(self.scale.max())
        self._zero = self._start - _FAR * self._unit
        self._numbers: list[int] = []
        self._places = np.empty((0, 3))
        self._busy = False
        self._prompts: tuple[Prompt, ...] = ()
        active = viewer.layers.selection.active
        look = {
            "ndim": 3,
            "scale": [self._unit] * 3,
            "translate": self._zero,
            "units": ["mm"] * 3,
            "axis_labels": list(grids.AXIS_LABELS),
            "metadata": {grids.KEY: {"role": ROLE}},
        }
        self.lines: Any = viewer.add_shapes(name=LINES, **look)
        self.points: Any = viewer.add_points(
            name=POINTS, size=1.0, canvas_size_limits=(9, 13), border_color="white", **look
        )
        viewer.layers.selection.active = active
        self.preview: Any = None
        self.points.events.data.connect(self._edited)

    def close(self) -> None:
        """Remove the layers."""
        self.points.events.data.disconnect(self._edited)
        for layer in (self.lines, self.points, self.preview):
            if layer is not None and layer in self._viewer.layers:
                self._viewer.layers.remove(layer)

    @property
    def gone(self) -> bool:
        """Whether a person has removed one of the layers."""
        return not all(one in self._viewer.layers for one in (self.lines, self.points))

    def show(self, prompts: Sequence[Prompt], doubt: Sequence[int] | None = None) -> None:
        """Show these prompts and no others.

        Args:
            prompts: of the active object, those that wait included.
            doubt: a doubtful place, an index of the layer, or None.
        """
        self._numbers = [n for n, one in enumerate(prompts) if one.kind == "point"]
        places = [self._world(prompts[n].voxels)[0] for n in self._numbers]
        colors = [_ADDS if prompts[n].positive else _TAKES for n in self._numbers]
        if doubt is not None:
            places.append(np.asarray(doubt) * self.scale / self._unit + _FAR)
            colors.append(_DOUBT)
        self._busy = True
        try:
            self.points.selected_data = set()
            self._places = np.array(places, float).reshape(-1, 3)
            self.points.data = self._places.copy()
            if places:
                self.points.face_color = colors
            if tuple(prompts) != self._prompts:
                self._prompts = tuple(prompts)
                self._show_lines(prompts)
        finally:
            self._busy = False

    def near(self, event: Any) -> int | None:
        """Give the number of the prompt whose point lies under the mouse, or None."""
        if not self._numbers:
            return None
        shown = [axis - (len(event.position) - 3) for axis in event.dims_displayed]
        at = (np.asarray(event.position)[-3:] - self._zero) / self._unit
        away = np.asarray(self.points.data)[: len(self._numbers)] - at
        hidden = [axis for axis in range(3) if axis not in shown]
        beside = np.abs(away[:, hidden]).max(axis=1) > 0.5
        zoom = event.camera_zoom * self._unit
        pixels = np.where(beside, np.inf, np.linalg.norm(away[:, shown], axis=1) * zoom)
        best = int(pixels.argmin())
        return self._numbers[best] if pixels[best] <= _NEAR_PIXELS else None

    def draw(self, tool: str, world: list[np.ndarray]) -> None:
        """Show what is being drawn; nothing when that ends."""
        places = np.array([(one[-3:] - self._zero) / self._unit for one in world]).reshape(-1, 3)
        if tool == "box" and len(places):
            places = _rectangle(places[0], places[-1])
        self._show_lines(self._prompts, [places] if len(places) > 1 else [])

    def show_first(self, told: tuple[int, Part] | None, color: Any = None) -> None:
        """Show a first answer in its place, or hide it."""
        if told is None:
            if self.preview is not None and self.preview.visible:
                self.preview.visible = False
            return
        _, part = told
        at = [one.start for one in self._turned.region(part.region)]
        mask = np.ascontiguousarray(self._turned.box(part.mask)).astype(np.uint8)
        place = self._start + np.array(at) * self.scale
        colors = {0: (0, 0, 0, 0), 1: color, None: (0, 0, 0, 0)}
        from napari.utils.colormaps import DirectLabelColormap

        colormap = DirectLabelColormap(color_dict=colors)
        if self.preview is None or self.preview not in self._viewer.layers:
            active = self._viewer.layers.selection.active
            self.preview = self._viewer.add_labels(
                mask,
                name=PREVIEW,
                scale=self.scale,
                translate=place,
                units=["mm"] * 3,
                axis_labels=list(grids.AXIS_LABELS),
                opacity=0.45,
                colormap=colormap,
                metadata={grids.KEY: {"role": ROLE}},
            )
            self._viewer.layers.selection.active = active
            return
        self.preview.data = mask
        self.preview.translate = place
        self.preview.colormap = colormap
        self.preview.visible = True

    def is_ours(self, layer: Any) -> bool:
        """Whether a layer is one of the marks."""
        ours = (self.lines, self.points, self.preview)
        return any(one is not None and itself(layer) is itself(one) for one in ours)

    def _world(self, voxels: Sequence[Sequence[int]]) -> np.ndarray:
        return self._turned.index(voxels) * self.scale / self._unit + _FAR

    def _pen(self, colors: list[str]) -> dict[str, Any]:
        return {
            "edge_color": colors,
            "face_color": "transparent",
            "edge_width": _LINE_MM / self._unit,
        }

    def _show_lines(self, prompts: Sequence[Prompt], drawn: Sequence[np.ndarray] = ()) -> None:
        # all are paths: napari fails to fill an outline that it sees from its edge
        paths = list(drawn)
        colors = [_DOUBT] * len(drawn)
        for one in prompts:
            places = self._world(one.voxels)
            more: list[np.ndarray] = []
            if one.kind == "box":
                more = _faces(places)
            elif one.kind == "lasso":
                more = [np.vstack([places, places[:1]])]
            elif one.kind == "scribble" and 1 < len(places) <= _MOST_DRAWN and _is_path(one):
                more = [places]
            paths += more
            colors += [_ADDS if one.positive else _TAKES] * len(more)
        if len(self.lines.data):
            self.lines.data = []
        if paths:
            self.lines.add(paths, shape_type="path", **self._pen(colors))

    def _edited(self, event: Any) -> None:
        """Hear of what a person does with napari's tools, once napari is done with it."""
        from qtpy.QtCore import QTimer

        action = str(getattr(event.action, "value", event.action))
        if self._busy or action not in ("added", "changed", "removed"):
            return
        # a tool in the dock of three planes gives all points anew
        data, known = np.array(self.points.data), self._places
        places = (data - _FAR) * self._unit / self.scale
        touched = _touched(known, data)
        numbers = [self._numbers[n] for n in touched if n < len(self._numbers)]

        def tell() -> None:
            if len(data) > len(known):
                self.added.emit(places[-1])
            elif len(data) < len(known) and numbers:
                self.deleted.emit(numbers)
            elif numbers:
                self.moved.emit(numbers[0], places[touched[0]])

        QTimer.singleShot(0, tell)


def _touched(before: np.ndarray, after: np.ndarray) -> list[int]:
    """Tell which of some points were moved or deleted; the others keep their order."""
    if len(before) == len(after):
        return np.flatnonzero((before != after).any(axis=1)).tolist()
    gone, rest = [], after.tolist()
    for n, place in enumerate(before.tolist()):
        if rest and rest[0] == place:
            rest.pop(0)
        else:
            gone.append(n)
    return gone


def _is_path(prompt: Prompt) -> bool:
    """Whether a scribble's voxels follow each other, as those of a drawn line do."""
    steps = np.abs(np.diff(np.array(prompt.voxels), axis=0)).max(axis=1)
    return bool((steps <= 1).all())


def _rectangle(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Give a way around a rectangle between two places on a slice."""
    flat = int(np.abs(other - one).argmin())
    first, second = (axis for axis in range(3) if axis != flat)
    corners = np.tile(one, (5, 1))
    corners[:, first] = one[first], one[first], other[first], other[first], one[first]
    corners[:, second] = one[second], other[second], other[second], one[second], one[second]
    return corners


def _faces(ends: np.ndarray) -> list[np.ndarray]:
    """Give ways around the faces of a box between two opposite corners: one where it is flat."""
    low, high = ends.min(axis=0), ends.max(axis=0)
    flat = np.flatnonzero(high == low)
    if len(flat):
        return [_rectangle(low, high)]
    return [
        _rectangle(
            np.where(np.arange(3) == axis, end, low), np.where(np.arange(3) == axis, end, high)
        )
        for axis in range(3)
        for end in (low[axis], high[axis])
    ]
