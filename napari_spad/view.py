"""Where the viewer looks: planes, slices, organs; pure model, no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakSet

import numpy as np

from napari_spad import grids

if TYPE_CHECKING:
    from napari import Viewer
    from napari.components import ViewerModel
    from napari.layers import Labels, Layer

PLANES = {"Axial": 0, "Coronal": 1, "Sagittal": 2}
"""The plane's name and the axis of (S-I, A-P, R-L) that its slices are stacked along."""


_IN_SIGHT = 0.9
_watched: WeakSet[ViewerModel] = WeakSet()


def show_plane(viewer: Viewer | ViewerModel, plane: str) -> None:
    """Turn the slice view to a plane, upright and radiological, and fit it to the canvas."""
    point = viewer.dims.point
    _turn(viewer, PLANES[plane])
    viewer.dims.ndisplay = 2
    # coming from 3D, napari moves a slider to the camera's centre
    viewer.dims.point = point
    viewer.reset_view()


def show_3d(viewer: Viewer | ViewerModel) -> None:
    """Show the body in 3D from the front: head above, the patient's right on the left."""
    _turn(viewer, PLANES["Coronal"])
    viewer.dims.ndisplay = 3
    viewer.scene.camera.angles = (0, 0, 0)
    viewer.reset_view()


def _turn(viewer: Viewer | ViewerModel, through: int) -> None:
    """Order the axes for a plane; with two of them swapped, 3D would be a mirror image."""
    first = viewer.dims.ndim - 3
    rest = [axis for axis in range(3) if axis != through]
    viewer.dims.order = (*range(first), *(first + axis for axis in (through, *rest)))
    is_swapped = through == PLANES["Coronal"]
    _, vertical, horizontal = viewer.scene.camera.orientation
    depth = "away" if is_swapped else "towards"
    viewer.scene.camera.orientation = (depth, vertical, horizontal)


def plane_of(viewer: Viewer | ViewerModel) -> str | None:
    """Name the plane that the slice view shows; None in 3D."""
    if viewer.dims.ndisplay != 2 or viewer.dims.ndim < 3:
        return None
    through = viewer.dims.order[-3] - (viewer.dims.ndim - 3)
    return next((name for name, axis in PLANES.items() if axis == through), None)


def select_soon(name: str) -> None:
    """Make a layer that is about to be added the active one, though others come after it."""
    from napari import current_viewer
    from qtpy.QtCore import QTimer

    viewer = current_viewer()
    if viewer is None:
        return

    def select() -> None:
        found = [layer for layer in viewer.layers if layer.name.startswith(name)]
        images = [layer for layer in found if not hasattr(layer, "selected_label")]
        if images:
            viewer.layers.selection.active = images[-1]

    QTimer.singleShot(0, select)


def install(viewer: Viewer | ViewerModel) -> None:
    """Show scans that come and lie elsewhere; doing it again changes nothing."""
    model = getattr(viewer, "__wrapped__", viewer)
    if model in _watched:
        return
    _watched.add(model)

    def come(event: Any) -> None:
        if len(model.layers) > 1:
            come_to(model, event.value)

    model.layers.events.inserted.connect(come)


def come_to(viewer: Viewer | ViewerModel, layer: Layer) -> None:
    """Go to the middle of a scan that the slices that are shown miss; else stay."""
    if layer.ndim < 3 or grids.role_in({"metadata": layer.metadata}) != "scan":
        return
    extent = layer.extent.world[:, -3:]
    half = np.abs(np.asarray(layer.scale)[-3:]) / 2
    place = np.array(viewer.dims.point[-3:])
    if np.any(place < extent[0] - half) or np.any(place > extent[1] + half):
        go_to(viewer, extent.mean(axis=0))


def go_to(viewer: Viewer | ViewerModel, position: np.ndarray) -> None:
    """Move slices and the camera to a place.

    Args:
        viewer: the viewer.
        position: (S-I, A-P, R-L) in napari's world, mm; the camera stays if it is in sight.
    """
    first = viewer.dims.ndim - 3
    for axis, place in enumerate(position):
        viewer.dims.set_point(first + axis, float(place))
    if viewer.canvas.grid.enabled:
        return
    camera = viewer.scene.camera
    shown = np.array([position[axis - first] for axis in viewer.dims.displayed if axis >= first])
    centre = np.array(camera.center)[-len(shown) :]
    half = np.array(viewer.canvas.size)[-len(shown) :] / camera.zoom / 2
    if len(shown) == 2 and np.any(np.abs(shown - centre) > _IN_SIGHT * half):
        camera.center = (0.0, float(shown[0]), float(shown[1]))


def organ_place(layer: Labels, label: int) -> np.ndarray | None:
    """Find a place inside an organ: where its cross-sections are largest.

    Args:
        layer: labels; of a series in time, the first time that has the organ.
        label: the organ's id.

    Returns:
        (S-I, A-P, R-L) in napari's world, mm; None if the organ has no voxel.
    """
    mask = np.asarray(layer.data) == label
    while mask.ndim > 3:
        times = np.flatnonzero(mask.any(axis=tuple(range(1, mask.ndim))))
        if not times.size:
            return None
        mask = mask[times[0]]
    if not mask.any():
        return None
    index = [0, 0, 0]
    index[0] = int(np.argmax(mask.sum(axis=(1, 2))))
    plane = mask[index[0]]
    index[1] = int(np.argmax(plane.sum(axis=1)))
    columns = np.flatnonzero(plane[index[1]])
    index[2] = int(columns[len(columns) // 2])
    return np.asarray(layer.scale)[-3:] * index + np.asarray(layer.translate)[-3:]


def shows_any(viewer: Viewer | ViewerModel, layer: Labels) -> bool:
    """Whether the slice that is shown crosses any label."""
    if viewer.dims.ndisplay == 3:
        return True
    return bool(np.any(shown_slice(viewer, layer)))


def shown_slice(viewer: Viewer | ViewerModel, layer: Layer) -> np.ndarray:
    """Give the voxels of a layer on the slice that is shown; empty if it lies outside."""
    data, offset = layer.data, viewer.dims.ndim - layer.ndim
    index: list[slice | int] = []
    for axis in range(layer.ndim):
        if offset + axis in viewer.dims.displayed:
            index.append(slice(None))
            continue
        at = round((viewer.dims.point[offset + axis] - layer.translate[axis]) / layer.scale[axis])
        if not 0 <= at < data.shape[axis]:
            return np.zeros(0, data.dtype)
        index.append(at)
    return np.asarray(data[tuple(index)])
