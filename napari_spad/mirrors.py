"""A layer of the viewer and its copies in other views: one set of voxels, everything in step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from napari.layers import Image, Labels, Layer, Points, Shapes, Surface, Tracks, Vectors
from napari.utils.events.event import WarningEmitter

if TYPE_CHECKING:
    from napari.components import ViewerModel

_OWN = {
    *("data", "name", "thumbnail", "metadata", "locked", "locked_data_level", "properties"),
    *("cursor", "cursor_size", "mouse_pan", "mouse_zoom", "help", "scale_factor"),
    *("auto_contrast", "plane", "depiction", "rendering", "interpolation3d", "iso_threshold"),
    *("attenuation", "iso_gradient_mode"),
}
"""What a copy has of its own, what only 3D needs, and what is followed in a way of its own."""

_BACK = ("mode", "selected_label", "brush_size", "affine", "scale", "translate", "rotate", "shear")
"""What a person can change by working in a copy."""

_ELEMENTS = {
    Points: ("features", "size", "symbol", "border_width", "border_color", "face_color", "shown"),
    Shapes: ("features", "edge_width", "edge_color", "face_color", "z_index"),
}
_KINDS = (Image, Labels, Points, Shapes, Surface, Tracks, Vectors)
_BEFORE = ("adding", "removing", "changing")


class Mirror:
    """Copies of a layer that share its data, for views with slices of their own.

    What changes in the layer changes in its copies; painting, picking and editing in a copy
    changes the layer, with one history to undo.

    Args:
        source: a layer of the viewer.
        viewer: the viewer that shows it.
        count: how many copies to make.
        wake: called when `refresh` is due.
    """

    def __init__(
        self, source: Layer, viewer: ViewerModel, count: int, wake: Callable[[], None]
    ) -> None:
        self.source, self._viewer, self._wake = source, viewer, wake
        self._busy = False
        self._stale: list[Layer] = []
        self._shown: tuple[Any, ...] = self._slice_key()
        data, state, _ = source.as_layer_data_tuple()
        kind = _kind(source)
        self.copies = [Layer.create(data, dict(state), kind) for _ in range(count)]
        self._names = _followed(source)
        for copy in self.copies:
            for name in self._names:
                _give(source, copy, name)
        self._share_history()
        self._connect()

    def end(self) -> None:
        """Let go of the layer."""
        for layer in (self.source, *self.copies):
            for emitter, call in self._connections(layer):
                emitter.disconnect(call)
        self._stale.clear()

    def refresh(self) -> None:
        """Draw again what shows other voxels than it should."""
        stale, self._stale = self._stale, []
        with self._quiet():
            for layer in stale:
                layer.refresh(thumbnail=layer is self.source, highlight=False, extent=False)

    def _connect(self) -> None:
        for layer in (self.source, *self.copies):
            for emitter, call in self._connections(layer):
                emitter.connect(call)

    def _connections(self, layer: Layer) -> Iterator[tuple[Any, Callable[..., None]]]:
        is_source, events = layer is self.source, layer.events
        if is_source:
            yield from ((events[name], self._changed) for name in (*self._names, "name"))
            yield events.data, self._data_changed
            yield events.set_data, self._drawn
        else:
            yield from ((events[name], self._changed_back) for name in _BACK if name in self._names)
        if isinstance(layer, Labels):
            yield events.labels_update, self._painting
            if not is_source:
                yield events.paint, self._painted
        elif isinstance(layer, Points | Shapes):
            yield events.highlight, self._selected
            if not is_source:
                yield events.data, self._edited

    @contextmanager
    def _quiet(self) -> Iterator[None]:
        """Do something that must not come back as an echo."""
        before, self._busy = self._busy, True
        try:
            yield
        finally:
            self._busy = before

    def _changed(self, event: Any) -> None:
        if self._busy:
            return
        with self._quiet():
            for copy in self.copies:
                _give(self.source, copy, event.type)
            if event.type == "editable":
                self._share_history()

    def _changed_back(self, event: Any) -> None:
        if self._busy:
            return
        with self._quiet():
            _give(event.source, self.source, event.type)
            for copy in self.copies:
                if copy is not event.source:
                    _give(self.source, copy, event.type)

    def _data_changed(self, event: Any) -> None:
        if self._busy or str(getattr(event, "action", "")) in _BEFORE:
            return
        with self._quiet():
            for copy in self.copies:
                _give_data(self.source, copy)
            self._share_history()

    def _edited(self, event: Any) -> None:
        """Points or shapes were added, moved or removed in a copy."""
        if self._busy or str(event.action) in _BEFORE:
            return
        with self._quiet():
            _give_data(event.source, self.source)
            for copy in self.copies:
                if copy is not event.source:
                    _give_data(self.source, copy)

    def _selected(self, event: Any) -> None:
        if self._busy:
            return
        with self._quiet():
            chosen = set(event.source.selected_data)
            for layer in (self.source, *self.copies):
                if set(layer.selected_data) != chosen and max(chosen, default=-1) < len(layer.data):
                    layer.selected_data = set(chosen)

    def _painting(self, event: Any) -> None:
        self._mark(event.source)

    def _painted(self, event: Any) -> None:
        """A stroke in a copy is over: the layer tells of it as if it were its own."""
        self._mark(event.source)
        self.source.events.paint(value=event.value)

    def _drawn(self, event: Any) -> None:
        """Tell voxels that changed (undo, a script) from another slice being shown."""
        before, self._shown = self._shown, self._slice_key()
        if not self._busy and before == self._shown:
            self._mark(self.source)

    def _mark(self, by: Layer) -> None:
        """Note that all others show old voxels."""
        if self._busy:
            return
        for layer in (self.source, *self.copies):
            if layer is not by and layer not in self._stale:
                self._stale.append(layer)
        self._wake()

    def _slice_key(self) -> tuple[Any, ...]:
        dims = self._viewer.dims
        return dims.point, dims.order, dims.ndisplay, self.source.visible

    def _share_history(self) -> None:
        """Let strokes in any view be undone in their order; napari has no public way to do so."""
        if isinstance(self.source, Labels):
            for copy in self.copies:
                copy._undo_history = self.source._undo_history
                copy._redo_history = self.source._redo_history
                # which a history of ours may have taken over
                copy.undo, copy.redo = self._undo, self._redo

    def _undo(self) -> None:
        self.source.undo()

    def _redo(self) -> None:
        self.source.redo()


def _kind(layer: Layer) -> str:
    """Name napari's own type of a layer, which may be of a class that a plugin has made of it."""
    return next(one.__name__.lower() for one in type(layer).mro() if one in _KINDS)


def _followed(layer: Layer) -> list[str]:
    """List the attributes of a layer that tell when they change and can be set."""
    kind = type(layer)
    names = []
    for name, emitter in layer.events.emitters.items():
        attribute = getattr(kind, name, None)
        if name in _OWN or isinstance(emitter, WarningEmitter):  # a deprecated attribute
            continue
        if isinstance(attribute, property) and attribute.fset is not None:
            names.append(name)
    # The range comes first: limits outside of the old one would be cut.
    return sorted(names, key=lambda name: (name != "contrast_limits_range", name))


def _own_names(layer: Layer) -> tuple[str, ...]:
    """Name what each point or shape of a layer has of its own."""
    return next((names for kind, names in _ELEMENTS.items() if isinstance(layer, kind)), ())


def _give(one: Layer, other: Layer, name: str) -> None:
    """Give another layer an attribute of one, where it can take it."""
    if name == "mode" and not other.visible:
        return
    if name in _own_names(one) and (len(one.data) == 0 or len(one.data) != len(other.data)):
        return
    value = getattr(one, name)
    if name.startswith("current_") and isinstance(other, Points | Shapes):
        # It would also change what is selected there; that is given as it is.
        with other.block_update_properties():
            _set(other, name, value)
        for own in _own_names(one):
            _give(one, other, own)
        return
    _set(other, name, value)


def _set(layer: Layer, name: str, value: Any) -> None:
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value.item()  # which `Points.current_size` gives and does not take
    setattr(layer, name, value)


def _give_data(one: Layer, other: Layer) -> None:
    """Give another layer the data of one, with what each point or shape has of its own."""
    if isinstance(other, Points | Shapes):
        other.selected_data = set()  # of what may not be there any more
    if isinstance(one, Shapes):
        other.data = list(zip(one.data, one.shape_type, strict=True))
    else:
        other.data = one.data
    for name in _own_names(one):
        _give(one, other, name)
    if isinstance(one, Points | Shapes):
        other.selected_data = set(one.selected_data)
