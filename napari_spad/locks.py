"""Locked labels: neither painting nor a model changes where they are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from psygnal import Signal

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
    layer.events.paint.connect(_stroke_ended)


def _stroke_ended(event: Any) -> None:
    """Take what a stroke did to locked labels out of the layer and of the stroke's undo step."""
    layer, stroke = event.source, event.value
    fixed = sorted(locked(layer))
    if not fixed:
        return
    touched: set[int] = set()
    # backwards, so that of two changes to one voxel the first one's old value stays
    kept = [_put_back(layer, step, fixed, touched) for step in reversed(stroke)]
    if not touched:
        return
    stroke[:] = [step for step in reversed(kept) if step is not None]
    history = layer._undo_history
    if not stroke and history and history[-1] is stroke:
        history.pop()
    layer.refresh(extent=False)
    refusals.refused.emit((layer, touched))


def _put_back(layer: Labels, step: Any, fixed: list[int], touched: set[int]) -> Any:
    """Undo the part of a step that concerns locked labels.

    Args:
        layer: the labels.
        step: napari's record: a box with a mask of changed voxels (None: all of it), or the
            indices of changed voxels; with the values before and the value after.
        fixed: the locked labels.
        touched: to which those of them are added that the step would have changed.

    Returns:
        The record of the rest, None if nothing is left.
    """
    is_box = hasattr(step, "slice_key")
    old, new = (step.old_values, step.new_value) if is_box else step[1:]
    old = np.asarray(old)
    held = np.isin(old, fixed) | np.isin(new, fixed)
    if not held.any():
        return step
    touched |= set(fixed) & {*np.unique(old).tolist(), *np.unique(new).tolist()}
    if is_box:
        shape = tuple(one.stop - one.start for one in step.slice_key)
        mask = np.ones(shape, bool) if step.mask is None else step.mask
        old, held = old.reshape(-1), held.reshape(-1)
        starts = [one.start for one in step.slice_key]
        where = tuple(at + n for at, n in zip(np.nonzero(mask), starts, strict=True))
    else:
        where = step[0]
    _restore(layer, tuple(index[held] for index in where), old[held])
    if held.all():
        return None
    if is_box:
        rest = np.zeros_like(mask)
        rest[mask] = ~held
        return step._replace(mask=rest, old_values=old[~held])
    after = new[~held] if np.ndim(new) else new
    return tuple(index[~held] for index in where), old[~held], after


def _restore(layer: Labels, where: tuple[np.ndarray, ...], values: np.ndarray) -> None:
    """Write values back, once napari has written those that replace them."""
    from qtpy.QtCore import QTimer

    data: Any = layer.data

    def write() -> None:
        data[where] = values
        layer.refresh(extent=False)

    # a stroke of the mouse is told of when it is done, a polygon before it is written
    if np.any(np.asarray(data[where]) != values):
        data[where] = values
    else:
        QTimer.singleShot(0, write)
