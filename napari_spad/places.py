"""Where a place of the viewer lies in a scan, and the other way round: pure model, no Qt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from napari import Viewer

    from spad.volumes.volume import Volume


def index_of(scan: Any, world: np.ndarray) -> np.ndarray:
    """Bring a place of the viewer to the last three axes of a scan's layer."""
    return np.asarray(scan.world_to_data(world[-scan.ndim :]), float)[-3:]


def world_of(scan: Any, index: Any) -> np.ndarray:
    """Bring an index of a scan's last three axes to napari's world, mm."""
    place: np.ndarray = np.asarray(scan.scale)[-3:] * index + np.asarray(scan.translate)[-3:]
    return place


def time_shown(viewer: Viewer, scan: Any) -> int:
    """Give the time of a series that is shown; 0 for a scan that is none."""
    if scan is None or scan.ndim < 4:
        return 0
    at = scan.world_to_data(viewer.dims.point[-scan.ndim :])[0]
    return int(np.clip(round(float(at)), 0, scan.data.shape[0] - 1))


def index_shown(viewer: Viewer, scan: Any) -> np.ndarray:
    """Give the index of a scan's layer where a person looks."""
    world = np.array(viewer.dims.point, float)
    if viewer.dims.ndisplay == 2:
        # where the camera looks, along the axes that are shown
        world[list(viewer.dims.displayed)] = np.array(viewer.scene.camera.center)[-2:]
    shape = np.array(scan.data.shape[-3:])
    return np.asarray(np.clip(index_of(scan, world), 0, shape - 1))


def words_of_time(volume: Volume) -> tuple[str, str]:
    """Say what a scan has many of, one of them and all: "time" and "series", or "channel"."""
    return ("channel", "scan") if volume.axes.startswith("c") else ("time", "series")
