"""Axial, coronal and sagittal views of what a viewer shows, in step with it; models, no Qt."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.components import ViewerModel

from napari_spad import edges
from napari_spad.layers import AXIS_LABELS
from napari_spad.mirrors import Mirror
from napari_spad.view import PLANES

if TYPE_CHECKING:
    from napari.layers import Layer

_UPRIGHT = ("towards", "down", "right")

FIT_MARGIN = 0.02
"""What `Planes.fit` leaves free around the layers, as a part of a canvas."""

SOON, WHILE_PAINTING = 0, 40
"""After how many milliseconds `catch_up` is wanted."""


class Planes:
    """Three slice views through one place: the point at which the viewer's sliders stand.

    Each plane is a `ViewerModel` whose layers are copies that share the voxels of the viewer's
    layers. Along the axes that a plane shows, its own sliders stay where they are: moving the
    cross within a plane slices only the other two again.

    Args:
        viewer: the viewer to follow.
        wake: called with a number of milliseconds after which `catch_up` is to be called; many
            changes in that time are caught up with at once.
    """

    def __init__(self, viewer: ViewerModel, wake: Callable[[int], None]) -> None:
        self.viewer, self._wake = viewer, wake
        self.models = {name: ViewerModel(title=name) for name in PLANES}
        self._mirrors: dict[Layer, Mirror] = {}
        self._connections = [
            *((event, self._layers_changed) for event in self._layer_events()),
            (viewer.layers.selection.events.active, self._layers_changed),
            (viewer.dims.events.point, self._moved),
            (viewer.dims.events.margin_left, self._moved),
            (viewer.dims.events.margin_right, self._moved),
            (viewer.events.theme, self._theme_changed),
        ]
        for emitter, call in self._connections:
            emitter.connect(call)
        for model in self.models.values():
            model.mouse_drag_callbacks.clear()
            model.mouse_wheel_callbacks.clear()
            model.mouse_double_click_callbacks.clear()
            model.scene.camera.events.orientation.connect(self._stand_upright)
        self._theme_changed()
        self._stand_upright()
        self._relayer = True
        self.catch_up()

    @property
    def ready(self) -> bool:
        """Whether there is anything with three axes to see."""
        return len(self.viewer.layers) > 0 and self.viewer.dims.ndim >= 3

    @property
    def is_anatomical(self) -> bool:
        """Whether the last three axes are known to be S-I, A-P and R-L."""
        return tuple(self.viewer.dims.axis_labels[-3:]) == AXIS_LABELS

    @property
    def cross(self) -> tuple[float, ...]:
        """Where the cross is in napari's world: (S-I, A-P, R-L), mm."""
        return tuple(float(place) for place in self.viewer.dims.point[-3:])

    @property
    def extent(self) -> np.ndarray:
        """How far the layers reach along (S-I, A-P, R-L), mm; ones if there is none."""
        if not self.ready:
            return np.ones(3)
        reach = self.viewer.layers.extent
        size = (reach.world[1] - reach.world[0] + reach.step)[-3:]
        return np.where(np.isfinite(size) & (size > 0), size, 1.0)

    def ends(self, plane: str) -> tuple[str, str, str, str]:
        """Give the letters at the left, right, upper and lower edge of a plane; "" if unknown."""
        found = edges.letters(self.models[plane])
        return found["left"], found["right"], found["top"], found["bottom"]

    def slice_of(self, plane: str) -> tuple[int, int]:
        """Give the number of the slice that a plane shows, from 1, and how many there are."""
        dims, axis = self.viewer.dims, self._axis(PLANES[plane])
        return int(dims.current_step[axis]) + 1, int(dims.nsteps[axis])

    def move_cross(self, position: Any) -> None:
        """Move the cross, and with it the viewer's sliders, to the nearest slices.

        Args:
            position: a place in napari's world; the last three are (S-I, A-P, R-L), mm.
        """
        if not self.ready:
            return
        axes = [self._axis(axis) for axis in range(3)]
        ranges = [self.viewer.dims.range[axis] for axis in axes]
        # The sliders would come to stand on a slice anyway, and all would be sliced twice.
        steps = [
            round((float(place) - reach.start) / reach.step)
            for place, reach in zip(position[-3:], ranges, strict=True)
        ]
        self.viewer.dims.set_current_step(axes, steps)

    def step(self, plane: str, slices: int) -> None:
        """Leaf through the slices of a plane."""
        if self.ready:
            axis = self._axis(PLANES[plane])
            dims = self.viewer.dims
            last = int(dims.nsteps[axis]) - 1
            dims.set_current_step(axis, min(max(dims.current_step[axis] + slices, 0), last))

    def fit(self, *, same_zoom: bool = True) -> None:
        """Show all of the layers in each plane.

        Args:
            same_zoom: whether a mm is as long in each of them.
        """
        if not self.ready:
            return
        for model in self.models.values():
            model.fit_to_view(margin=FIT_MARGIN)
        if same_zoom:
            self.zoom(min(model.scene.camera.zoom for model in self.models.values()))

    def zoom(self, pixels_per_mm: float) -> None:
        """Set the zoom of each plane."""
        for model in self.models.values():
            model.scene.camera.zoom = pixels_per_mm

    def catch_up(self) -> None:
        """Bring the planes into step with the viewer."""
        if self._relayer:
            self._relayer = False
            self._match_layers()
        if self.ready:
            self._place()
        for mirror in self._mirrors.values():
            mirror.refresh()

    def let_go(self) -> None:
        """Hear no more of the viewer and of its layers."""
        for emitter, call in self._connections:
            emitter.disconnect(call)
        self._connections.clear()
        for mirror in self._mirrors.values():
            mirror.end()
        self._mirrors.clear()

    def close(self) -> None:
        """Let go, and leave the planes without layers."""
        self.let_go()
        for model in self.models.values():
            model.layers.clear()

    def _layer_events(self) -> list[Any]:
        events = self.viewer.layers.events
        return [events.inserted, events.removed, events.reordered, events.changed]

    def _layers_changed(self, event: Any = None) -> None:
        self._relayer = True
        self._wake(SOON)

    def _moved(self, event: Any = None) -> None:
        self._wake(SOON)

    def _theme_changed(self, event: Any = None) -> None:
        for model in self.models.values():
            model.theme = self.viewer.theme

    def _stand_upright(self, event: Any = None) -> None:
        """Keep the person's preferences for the main view's axes out of these."""
        for model in self.models.values():
            if tuple(model.scene.camera.orientation) != _UPRIGHT:
                model.scene.camera.orientation = _UPRIGHT

    def _axis(self, spatial: int) -> int:
        return self.viewer.dims.ndim - 3 + spatial

    def _match_layers(self) -> None:
        """Bring the planes' lists of layers into step with the viewer's."""
        sources = list(self.viewer.layers)
        for gone in [layer for layer in self._mirrors if layer not in sources]:
            mirror = self._mirrors.pop(gone)
            mirror.end()
            for model, copy in zip(self.models.values(), mirror.copies, strict=True):
                model.layers.selection.clear()  # else its current item lives on, with its voxels
                model.layers.remove(copy)
        for index, source in enumerate(sources):
            if source in self._mirrors:
                continue
            mirror = Mirror(source, self.viewer, len(self.models), self._painted)
            self._mirrors[source] = mirror
            for model, copy in zip(self.models.values(), mirror.copies, strict=True):
                model.layers.insert(index, copy)
        for number, model in enumerate(self.models.values()):
            order = [self._mirrors[source].copies[number] for source in sources]
            for index, copy in enumerate(order):
                if model.layers[index] is not copy:
                    model.layers.move(model.layers.index(copy), index)
            active = self.viewer.layers.selection.active
            chosen = None if active is None else self._mirrors[active].copies[number]
            if model.layers.selection.active is not chosen:
                model.layers.selection.active = chosen

    def _painted(self) -> None:
        self._wake(WHILE_PAINTING)

    def _place(self) -> None:
        """Show the slices through the cross."""
        dims = self.viewer.dims
        first = self._axis(0)
        for plane, model in self.models.items():
            if model.dims.ndim != dims.ndim:
                continue
            shown = [first + axis for axis in shown_axes(plane)]
            order = (*range(first), first + PLANES[plane], *shown)
            if model.dims.order != order:
                model.dims.order = order
            model.dims.margin_left = dims.margin_left
            model.dims.margin_right = dims.margin_right
            point = [
                own if axis in shown else place
                for axis, (own, place) in enumerate(zip(model.dims.point, dims.point, strict=True))
            ]
            model.dims.point = tuple(point)


def shown_axes(plane: str) -> tuple[int, int]:
    """Give the axes of (S-I, A-P, R-L) that a plane shows downwards and to the right."""
    down, across = (axis for axis in range(3) if axis != PLANES[plane])
    return down, across
