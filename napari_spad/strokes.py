"""What napari notes down about a stroke on labels, and taking a part of a stroke back."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import numpy as np

Where = tuple[np.ndarray, ...]
Region = tuple[slice, ...]


class Change:
    """One record of a stroke: which voxels it changed, from what and into what.

    Args:
        record: a box with a mask of changed voxels (None: all of it), or the indices of changed
            voxels; with the values before and the value, or values, after.

    Attributes:
        old: the values before, one per voxel.
        new: the value, or the values, after.
    """

    def __init__(self, record: Any) -> None:
        self._record = record
        self._is_box = hasattr(record, "slice_key")
        if self._is_box:
            self.old, self.new = np.asarray(record.old_values).reshape(-1), record.new_value
        else:
            self.old, self.new = np.asarray(record[1]), record[2]

    @cached_property
    def where(self) -> Where:
        """The indices of the voxels, in the order of the values."""
        if not self._is_box:
            return tuple(np.asarray(index) for index in self._record[0])
        starts = [one.start for one in self._record.slice_key]
        return tuple(at + n for at, n in zip(np.nonzero(self._mask), starts, strict=True))

    @property
    def box(self) -> tuple[Region, np.ndarray, np.ndarray, np.ndarray]:
        """The box around the voxels, their mask in it, and old and new values in its order."""
        new = np.broadcast_to(self.new, self.old.shape)
        if self._is_box:
            return self._record.slice_key, self._mask, self.old, new
        region = tuple(slice(int(at.min()), int(at.max()) + 1) for at in self.where)
        shape = tuple(one.stop - one.start for one in region)
        mask = np.zeros(shape, bool)
        before, after = np.zeros(shape, self.old.dtype), np.zeros(shape, self.old.dtype)
        inside = tuple(at - one.start for at, one in zip(self.where, region, strict=True))
        mask[inside], before[inside], after[inside] = True, self.old, new
        return region, mask, before[mask], after[mask]

    def without(self, held: np.ndarray) -> Any:
        """Give the record of the rest, None if nothing is left.

        Args:
            held: for each voxel, whether it is taken out.
        """
        if held.all():
            return None
        if self._is_box:
            rest = np.zeros_like(self._mask)
            rest[self._mask] = ~held
            return self._record._replace(mask=rest, old_values=self.old[~held])
        after = self.new[~held] if np.ndim(self.new) else self.new
        return tuple(index[~held] for index in self.where), self.old[~held], after

    @property
    def _mask(self) -> np.ndarray:
        record = self._record
        if record.mask is not None:
            return record.mask
        return np.ones(tuple(one.stop - one.start for one in record.slice_key), bool)


def cut(layer: Any, stroke: list[Any], refuses: Callable[[Change], np.ndarray]) -> bool:
    """Take what must not be changed out of a layer and of the stroke's undo step.

    Args:
        layer: the labels.
        stroke: napari's records, as the event `paint` brings them; shortened in place.
        refuses: tells for each voxel of a change whether it has to stay as it was.

    Returns:
        Whether anything was taken back.
    """
    kept: list[Any] = []
    taken = False
    # backwards, so that of two changes to one voxel the first one's old value stays
    for record in reversed(stroke):
        change = Change(record)
        held = refuses(change)
        if not held.any():
            kept.append(record)
            continue
        taken = True
        _restore(layer, tuple(index[held] for index in change.where), change.old[held])
        kept.append(change.without(held))
    if not taken:
        return False
    stroke[:] = [record for record in reversed(kept) if record is not None]
    history = layer._undo_history
    if not stroke and history and history[-1] is stroke:
        history.pop()
    layer.refresh(extent=False)
    return True


def _restore(layer: Any, where: Where, values: np.ndarray) -> None:
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
