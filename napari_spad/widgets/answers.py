"""How the answers of a segmenter come into the viewer."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from napari_spad import layers, locks
from napari_spad.merging import merge
from napari_spad.organ_layers import itself, names_of, on_same_grid
from napari_spad.widgets.job_dock import add_layer
from spad.volumes.axes import from_canonical

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Layer

    from napari_spad.box import Intervals
    from spad.volumes.volume import Volume

_COVERING = ("mask", "seen", "reconstruction", "error", "codes", "difference")
"""Roles of other results, which would cover the scan that the organs lie on."""

_FADING = 0.7
"""Below 1, so that what is half sure is nearly opaque."""


class Answers:
    """Shows labels as layers, and knows which of them nobody has changed since.

    Args:
        viewer: the viewer.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._untouched: WeakKeyDictionary[Any, dict[int, str]] = WeakKeyDictionary()

    def join(
        self, answer: Volume, scan: Layer, earlier: Any, box: Intervals | None
    ) -> tuple[Volume, set[int]]:
        """Lay an answer into earlier organs where a box or locks ask for that.

        Args:
            answer: labels on the scan's grid.
            scan: its layer.
            earlier: the layer of the organs in question, or None.
            box: what the model looked at, None for the whole scan.

        Returns:
            The labels, the answer itself if it stands alone, and the ids that are locked in them.
        """
        if earlier is None or earlier.ndim > 3 or not on_same_grid(earlier, scan):
            return answer, set()
        fixed = locks.locked(earlier)
        if not fixed and (box is None or layers.role_of(earlier) != "organs"):
            return answer, set()
        new, *_ = layers.to_layer(answer, scan.name, role="organs")
        array, names, fixed = merge(
            new, answer.label_names or {}, earlier.data, names_of(earlier), box, fixed
        )
        made = from_canonical(array, answer, depth_first=False)
        return answer.with_array(made, label_names=names), fixed

    def show(self, answer: Volume, scan: Layer) -> Any:
        """Show labels in an earlier answer's layer, or a new one, and hide what covers them.

        Args:
            answer: labels on the scan's grid.
            scan: its layer.

        Returns:
            The layer.
        """
        made = layers.to_layer(answer, f"{scan.name} - organs", role="organs")
        names = answer.label_names or {}
        found = self._untouched_like(made, names, scan)
        for other in self._viewer.layers:
            earlier = layers.role_of(other) == "organs" and on_same_grid(other, scan)
            if other is not found and (earlier or layers.role_of(other) in _COVERING):
                other.visible = False
        self._viewer.canvas.grid.enabled = False
        if found is None:
            found = add_layer(self._viewer, made)
            for event in (found.events.paint, found.events.data):
                event.connect(self._touched)
        else:
            found.data = made[0]
            found.visible = True
        self._untouched[itself(found)] = names
        return found

    def _untouched_like(self, made: layers.LayerData, names: dict[int, str], scan: Layer) -> Any:
        """Give the layer of an earlier answer that nobody has changed since, if this one fits it.

        napari takes a quarter of a second to make a Labels layer, in which nothing moves.
        """
        data = made[0]
        for old in reversed(self._viewer.layers):
            alike = self._untouched.get(itself(old)) == names and old.data.shape == data.shape
            if alike and old.data.dtype == data.dtype and on_same_grid(old, scan):
                return old
        return None

    def _touched(self, event: Any) -> None:
        self._untouched.pop(event.source, None)


def show_confidence(viewer: Viewer, confidence: Volume | None, scan: Layer) -> None:
    """Show how sure a model is of each voxel, and take away what an earlier answer said.

    Args:
        viewer: the viewer.
        confidence: stored in percent, on the scan's grid; None for nothing.
        scan: the layer of the scan.
    """
    for old in confidence_of(viewer, scan):
        viewer.layers.remove(old)
    if confidence is None:
        return
    active = viewer.layers.selection.active
    percent = replace(confidence, slope=1.0, intercept=0.0)
    look: dict[str, Any] = {"colormap": unsure_colormap(), "contrast_limits": (0, 100)}
    name = f"{scan.name} - confidence"
    add_layer(viewer, layers.to_layer(percent, name, role="confidence", **look))
    viewer.layers.selection.active = active


def unsure_colormap() -> Any:
    """Make the colormap of confidence: transparent where a model is sure, strong where not."""
    from napari.utils.colormaps import Colormap, ensure_colormap

    colors = ensure_colormap("inferno").map(np.linspace(1, 0, 256))
    colors[:, 3] = np.linspace(1, 0, 256) ** _FADING
    return Colormap(colors, name="unsure", display_name="unsure")


def confidence_of(viewer: Viewer, scan: Layer) -> list[Any]:
    """Find the confidence layers of a scan."""
    return [
        layer
        for layer in viewer.layers
        if layers.role_of(layer) == "confidence" and on_same_grid(layer, scan)
    ]
