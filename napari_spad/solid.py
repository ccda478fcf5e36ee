"""Organs alone in 3D: solid and smooth, without the scan that would shine through them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from napari_spad import layers
from napari_spad.organ_layers import itself

if TYPE_CHECKING:
    from napari import Viewer
    from napari.layers import Labels

_LOOK = {"opacity": 1.0, "iso_gradient_mode": "smooth"}


class Solid:
    """Shows organs alone, and afterwards everything as it was.

    Args:
        viewer: the viewer.
    """

    def __init__(self, viewer: Viewer) -> None:
        self._viewer = viewer
        self._before: list[tuple[Any, str, Any]] = []

    def show(self, organs: Labels) -> None:
        """Hide scans and other labels, and make the organs solid."""
        self.end()
        for layer in self._viewer.layers:
            is_ours = itself(layer) is itself(organs)
            covers = layers.is_image(layer) or layers.is_colours(layer) or layers.is_labels(layer)
            if layer.visible and covers and not is_ours:
                self._change(layer, "visible", False)
        for name, value in _LOOK.items():
            self._change(organs, name, value)

    def end(self) -> None:
        """Bring back what was changed, on the layers that are still there."""
        before, self._before = self._before, []
        for layer, name, value in before:
            if layer in self._viewer.layers:
                setattr(layer, name, value)

    def _change(self, layer: Any, name: str, value: Any) -> None:
        self._before.append((layer, name, getattr(layer, name)))
        setattr(layer, name, value)
