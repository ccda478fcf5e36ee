"""One history of a labels layer, without limit: strokes, edits and clicks in their order."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from psygnal import Signal

from napari_spad import locks
from napari_spad.organ_layers import itself, names_of
from napari_spad.strokes import Change, Region
from spad.errors import SpadError
from spad.volumes.colors import readable

if TYPE_CHECKING:
    from napari.layers import Labels

_Joined = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]
_histories: WeakKeyDictionary[Any, History] = WeakKeyDictionary()


def history_of(layer: Labels) -> History:
    """Give the history of a labels layer; from the first call on it is the layer's only one.

    napari's own undo and redo (Ctrl+Z, Ctrl+Shift+Z, also in *Three planes*) lead to it.

    Args:
        layer: labels, not multiscale.

    Returns:
        The same history at every call.
    """
    own: Any = itself(layer)
    if own not in _histories:
        _histories[own] = History(own)
    return _histories[own]


class History:
    """What was done to a labels layer, to be undone and redone step by step.

    A step keeps the voxels that it changed, compressed, and may carry a payload of whoever made
    it, such as the clicks before and after. Strokes with napari's tools become steps by
    themselves. `layer.events.paint` tells of every change, undoing and redoing included, with an
    empty list of records where it was no stroke. Another array in the layer begins a new history.

    Args:
        layer: labels; use `history_of`.
    """

    changed = Signal()
    """There is another step to undo or to redo."""
    happened = Signal(str, object)
    """("done", "undone" or "redone", the step) once its voxels are written, ("cleared", None)."""
    restored = Signal(object)
    """A step with a payload was undone or redone: the payload that holds now."""

    def __init__(self, layer: Labels) -> None:
        own: Any = layer
        self._layer = ref(own)
        self._done: list[_Step] = []
        self._undone: list[_Step] = []
        self._array = own.data
        self.version = 0
        for record in list(own._undo_history):
            self._take(record)
        _forget(own)
        own.undo, own.redo = self.undo, self.redo
        own.events.paint.connect(self._stroke_ended)
        own.events.data.connect(self._data_changed)

    @property
    def can_undo(self) -> bool:
        """Whether there is a step to undo."""
        return bool(self._done)

    @property
    def can_redo(self) -> bool:
        """Whether there is a step to redo."""
        return bool(self._undone)

    @property
    def steps(self) -> tuple[_Step, ...]:
        """What was done and is not undone, the oldest first."""
        return tuple(self._done)

    @property
    def undo_text(self) -> str:
        """What the step to undo did, "" if there is none."""
        return self._done[-1].text if self._done else ""

    @property
    def redo_text(self) -> str:
        """What the step to redo did, "" if there is none."""
        return self._undone[-1].text if self._undone else ""

    def change(
        self,
        text: str,
        region: Region,
        new_values: Any,
        payload: tuple[Any, Any] | None = None,
    ) -> set[int]:
        """Write labels into a box of the layer, as one step; locked labels stay where they are.

        Args:
            text: what it does, in a few words: "Smooth liver".
            region: the box, a slice for each axis of the layer.
            new_values: the labels to come, of the box's shape (or one label for all of it).
            payload: before and after, given to `restored` when the step is undone and redone; with
                one, there is a step even where no voxel changes.

        Returns:
            The locked labels that it would have changed.

        Raises:
            SpadError: the layer's type of voxel cannot hold a label; nothing has changed.
        """
        layer = self._there()
        region = _within(region, layer.data.shape)
        old = np.asarray(layer.data[region])
        new = np.broadcast_to(new_values, old.shape)
        mask = old != new
        region, mask, old, new = _shrunk(region, mask, old, new)
        before, after = old[mask], new[mask]
        met: set[int] = set()
        if fixed := locks.locked(layer):
            held = locks.refused(before, after, fixed)
            met = fixed & {*np.unique(before[held]).tolist(), *np.unique(after[held]).tolist()}
            mask = mask.copy()
            mask[mask] = ~held
            before, after = before[~held], after[~held]
        _check_type(after, old.dtype)
        if not before.size and payload is None:
            return met
        step = _Step(text, payload)
        if before.size:
            step.pieces.append(_Piece.of(region, mask, before, after.astype(old.dtype)))
            step.pieces[0].write(layer, after=True)
        self._record(step)
        self._tell(layer)
        return met

    def undo(self) -> None:
        """Undo the last step, if there is one."""
        if self._done:
            step = self._done.pop()
            self._undone.append(step)
            self._replay(step, after=False)

    def redo(self) -> None:
        """Do the step again that was undone last, if there is one."""
        if self._undone:
            step = self._undone.pop()
            self._done.append(step)
            self._replay(step, after=True)

    def clear(self) -> None:
        """Forget all steps; the labels stay as they are."""
        self._done.clear()
        self._undone.clear()
        self.version += 1
        self.happened.emit("cleared", None)
        self.changed.emit()

    def _replay(self, step: _Step, *, after: bool) -> None:
        layer = self._there()
        for piece in step.pieces if after else reversed(step.pieces):
            piece.write(layer, after=after)
        self.version += 1
        self.happened.emit("redone" if after else "undone", step)
        self._tell(layer)
        if step.payload is not None:
            self.restored.emit(step.payload[after])

    def _record(self, step: _Step) -> None:
        self._done.append(step)
        self._undone.clear()
        self.version += 1
        self.happened.emit("done", step)

    def _tell(self, layer: Any) -> None:
        layer.refresh(extent=False)
        layer.events.paint(value=[])
        self.changed.emit()

    def _stroke_ended(self, event: Any) -> None:
        """Take what is left of a stroke, once all others have cut it."""
        layer = self._there()
        _forget(layer)
        if event.value:
            self._take(event.value)
            self.changed.emit()

    def _take(self, stroke: list[Any]) -> None:
        changes = [Change(record) for record in stroke]
        # a polygon is told of before it is written: the record alone says what it does
        pieces = [_Piece.of(*change.box) for change in changes if change.old.size]
        label = int(np.reshape(changes[-1].new, -1)[-1]) if pieces else 0
        name = readable(names_of(self._there()).get(label, f"label {label}"))
        self._record(_Step(f"Paint {name}" if label else "Erase", None, pieces, by_hand=True))

    def _data_changed(self, event: Any = None) -> None:
        layer = self._there()
        if layer.data is not self._array:
            self._array = layer.data
            _forget(layer)
            self.clear()

    def _there(self) -> Any:
        layer = self._layer()
        assert layer is not None, "a history lives as long as its layer"
        return layer


@dataclass
class _Step:
    """Something that was done: what, the payload before and after, and the voxels in order."""

    text: str
    payload: tuple[Any, Any] | None
    pieces: list[_Piece] = field(default_factory=list)
    by_hand: bool = False
    """Whether it is a stroke with one of napari's tools."""

    @cached_property
    def labels(self) -> frozenset[int]:
        """Labels that got voxels, or lost some to the background."""
        found: set[int] = set()
        for piece in self.pieces:
            before, after = piece.before(), piece.after()
            found.update(np.unique(np.where(after == 0, before, after)).tolist())
        return frozenset(found - {0})

    def joined(self, time: int = 0) -> _Joined | None:
        """Give all its changed voxels along the last three axes; None if there are none.

        Args:
            time: which one, for a layer of a series.
        """
        parts = [part for piece in self.pieces if (part := piece.at(time)) is not None]
        if not parts:
            return None
        low = np.min([start for start, *_ in parts], axis=0)
        high = np.max([np.add(start, mask.shape) for start, mask, *_ in parts], axis=0)
        mask = np.zeros(high - low, bool)
        before, after = (np.zeros(mask.shape, parts[0][2].dtype) for _ in range(2))
        for start, here, old, new in parts:
            box = tuple(slice(a, a + n) for a, n in zip(start - low, here.shape, strict=True))
            first = here & ~mask[box]
            before[box][first] = old[first[here]]
            after[box][here] = new
            mask[box] |= here
        return low, mask, before, after


@dataclass(frozen=True, eq=False)
class _Piece:
    """Voxels of one box, small in memory."""

    region: Region
    mask: Callable[[], np.ndarray]
    before: Callable[[], np.ndarray]
    after: Callable[[], np.ndarray]

    @classmethod
    def of(cls, region: Region, mask: np.ndarray, before: np.ndarray, after: np.ndarray) -> _Piece:
        bits = _packed(np.packbits(mask))
        shape, count = mask.shape, mask.size

        def unpacked() -> np.ndarray:
            return np.unpackbits(bits(), count=count).reshape(shape).view(bool)

        return cls(region, unpacked, _packed(before), _packed(after))

    def at(self, time: int) -> _Joined | None:
        """Give its start, its mask and the values before and after, for one time of a series."""
        mask, before, after = self.mask(), self.before(), self.after()
        start = np.array([one.start for one in self.region])
        if len(start) > 3:
            here = time - start[-4]
            if not 0 <= here < mask.shape[-4]:
                return None
            which = np.nonzero(mask)[-4] == here
            mask, before, after, start = mask[here], before[which], after[which], start[-3:]
        return start, mask, before, after

    def write(self, layer: Any, *, after: bool) -> None:
        """Write the values after, or those before, into the layer."""
        box = np.asarray(layer.data[self.region])
        if not box.flags.writeable:
            box = box.copy()
        box[self.mask()] = self.after() if after else self.before()
        # no more than a formality for arrays of numpy, whose box is the layer's own memory
        layer.data[self.region] = box


def _packed(values: np.ndarray) -> Callable[[], np.ndarray]:
    """Compress values; the answer gives them back."""
    dtype, count = values.dtype, values.size
    if count and (values == values.flat[0]).all():
        one = values.flat[0]
        return lambda: np.full(count, one, dtype)
    data = zlib.compress(np.ascontiguousarray(values).tobytes(), 1)
    return lambda: np.frombuffer(zlib.decompress(data), dtype)


def _forget(layer: Any) -> None:
    """Empty napari's own history."""
    layer._undo_history.clear()
    layer._redo_history.clear()


def _within(region: Region, shape: tuple[int, ...]) -> Region:
    """Give a region plain bounds inside the layer."""
    bounds = (one.indices(n) for one, n in zip(region, shape, strict=True))
    return tuple(slice(start, max(start, stop)) for start, stop, _ in bounds)


def _shrunk(region: Region, mask: np.ndarray, *arrays: np.ndarray) -> Any:
    """Leave out what of a box has no changed voxel at its sides."""
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        lines = np.flatnonzero(mask.any(axis=others))
        first, last = (int(lines[0]), int(lines[-1]) + 1) if lines.size else (0, 0)
        part = (*[slice(None)] * axis, slice(first, last))
        start = region[axis].start
        region = (
            *region[:axis],
            slice(start + first, start + last),
            *region[axis + 1 :],
        )
        mask, *arrays = (one[part] for one in (mask, *arrays))  # type: ignore[assignment]
    return region, mask, *arrays


def _check_type(values: np.ndarray, dtype: np.dtype) -> None:
    if not values.size:
        return
    low, high = int(values.min()), int(values.max())
    limits = np.iinfo(dtype)
    if low < limits.min or high > limits.max:
        label = low if low < limits.min else high
        raise SpadError(
            f"Label {label} does not fit these labels, which are of type {dtype}; expected at most "
            f"{limits.max}; convert the layer to a larger type (right click, Convert data type)."
        )
