"""Locked labels: neither painting nor a model changes where they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

from napari_spad import strokes
from napari_spad.organ_layers import mark, marked

if TYPE_CHECKING:
    from napari.layers import Labels

_LOCKED = "locked"


class _Refusals:
    """Tells that painting would have changed locked labels: the pair (layer, ids)."""

    refused = Signal(object)


refusals = _Refusals()


def locked(layer: Labels) -> set[int]:
    """Give the labels that are locked."""
    return set(marked(layer, _LOCKED) or ())


def lock(layer: Labels, labels: Iterable[int]) -> None:
    """Lock these labels of a layer and unlock all others."""
    mark(layer, {_LOCKED: tuple(sorted(int(label) for label in labels)) or None})
    guard(layer)


def guard(layer: Labels) -> None:
    """Watch the strokes on a layer (a copy of one, too); doing it again changes nothing."""
    # before all others hear of a stroke, who are to see what is left of it
    layer.events.paint.connect(_stroke_ended, position="first")


def refused(old: np.ndarray, new: Any, fixed: Iterable[int]) -> np.ndarray:
    """Tell where a change would take voxels from locked labels, or give some to them.

    Args:
        old: the labels now.
        new: the label, or the labels, to come.
        fixed: the locked labels.

    Returns:
        For each voxel, whether it has to stay as it is.
    """
    names = sorted(fixed)
    return np.isin(old, names) | np.isin(new, names)


def _stroke_ended(event: Any) -> None:
    """Take what a stroke did to locked labels out of the layer and of the stroke's undo step."""
    layer, fixed = event.source, locked(event.source)
    if not fixed:
        return
    touched: set[int] = set()

    def refuses(change: strokes.Change) -> np.ndarray:
        held = refused(change.old, change.new, fixed)
        if held.any():
            touched.update(*(np.unique(one).tolist() for one in (change.old, change.new)))
        return held

    if strokes.cut(layer, event.value, refuses):
        refusals.refused.emit((layer, touched & fixed))
