"""Letters at the edges of the canvas: which side is right, left, front, back, head and feet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import grids, layers
from napari_spad.cursor import knows_orientation
from spad.volumes.axes import canonical_affine

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import ViewerModel

EDGES = {
    "left": "middle_left",
    "right": "middle_right",
    "top": "top_center",
    "bottom": "bottom_center",
}
"""The canvas's edges and napari's names for their middles."""

_LETTERS = (("R", "L"), ("A", "P"), ("S", "I"))
_SECOND = float(np.sin(np.radians(5.0)))
_COLOR, _BOX = (1.0, 0.87, 0.35, 1.0), (0.0, 0.0, 0.0, 0.5)
_SIZE = 14


def install(viewer: Viewer | ViewerModel) -> None:
    """Show the letters in a viewer from now on; doing it again changes nothing."""
    from napari.components.overlays import TextOverlay

    overlays = viewer.canvas.overlays
    if name_of("left") in overlays:
        return
    for edge, position in EDGES.items():
        overlays[name_of(edge)] = TextOverlay(
            position=position,
            color=_COLOR,
            box=False,
            box_color=_BOX,
            font_size=_SIZE,
            gridded=True,
            visible=True,
        )

    def update(event: Any = None) -> None:
        _write(viewer)

    def watch(event: Any) -> None:
        event.value.events.visible.connect(update)
        update()

    dims, camera = viewer.dims.events, viewer.scene.camera.events
    for event in (dims.order, dims.ndisplay, dims.ndim, camera.orientation):
        event.connect(update)
    for layer in viewer.layers:
        layer.events.visible.connect(update)
    viewer.layers.events.inserted.connect(watch)
    viewer.layers.events.removed.connect(update)
    viewer.layers.events.reordered.connect(update)
    viewer.layers.selection.events.active.connect(update)
    update()


def show(viewer: Viewer | ViewerModel, on: bool) -> None:
    """Show or hide the letters, as a person wants."""
    install(viewer)
    for edge in EDGES:
        viewer.canvas.overlays[name_of(edge)].visible = on


def are_shown(viewer: Viewer | ViewerModel) -> bool:
    """Whether a person wants to see the letters."""
    overlay = viewer.canvas.overlays.get(name_of("left"))
    return overlay is None or bool(overlay.visible)


def letters(viewer: Viewer | ViewerModel) -> dict[str, str]:
    """Give the letters of the edges.

    They are those of the selected layer if it lies on an open scan and is visible, else of the
    topmost such layer. An edge of a tilted scan gets further letters in order of dominance, as in
    DICOM's Patient Orientation (PS3.3, C.7.6.1.1.1): "AS" is mostly anterior, a little superior.

    Args:
        viewer: the viewer.

    Returns:
        Letters by the names of `EDGES`; empty in 3D and where no scan with a known orientation
        is visible.
    """
    dims = viewer.dims
    grid = _grid_shown(viewer)
    if dims.ndisplay != 2 or dims.ndim < 3 or grid is None:
        return dict.fromkeys(EDGES, "")
    volume = grid.volume
    affine = canonical_affine(volume.affine, volume.spatial_shape, depth_first=False)
    first = dims.ndim - 3
    if min(dims.displayed) < first:
        return dict.fromkeys(EDGES, "")
    down, right = (affine[:3, axis - first] for axis in dims.displayed)
    vertical, horizontal = (str(way) for way in viewer.scene.camera.orientation2d)
    down = down if vertical == "down" else -down
    right = right if horizontal == "right" else -right
    return {
        "left": toward(-right),
        "right": toward(right),
        "top": toward(-down),
        "bottom": toward(down),
    }


def toward(direction: np.ndarray) -> str:
    """Name a direction in R, A, S by its letters in order of dominance, from 5 degrees on."""
    unit = np.asarray(direction, float) / np.linalg.norm(direction)
    order = np.argsort(-np.abs(unit), kind="stable")
    kept = [axis for n, axis in enumerate(order) if n == 0 or abs(unit[axis]) > _SECOND]
    return "".join(_LETTERS[axis][int(unit[axis] < 0)] for axis in kept)


def name_of(edge: str) -> str:
    """Give the name of an edge's letter among `viewer.canvas.overlays`."""
    return f"napari_spad_{edge}"


def _grid_shown(viewer: Any) -> grids.Grid | None:
    active = viewer.layers.selection.active
    for layer in ([] if active is None else [active]) + list(reversed(viewer.layers)):
        if not layer.visible:
            continue
        grid = layers.grid_of_layer(layer)
        if grid is not None and knows_orientation(grid.volume):
            return grid
    return None


def _write(viewer: Any) -> None:
    overlays = viewer.canvas.overlays
    for edge, words in letters(viewer).items():
        overlay = overlays.get(name_of(edge))
        if overlay is not None and overlay.text != words:
            overlay.text = words
            overlay.box = bool(words)
