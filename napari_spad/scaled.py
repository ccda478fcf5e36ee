"""Voxels for napari: large scans are scaled as slices are asked for, large labels painted on."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.lib.mixins import NDArrayOperatorsMixin

LARGE_BYTES = 1 << 28
"""Above 256 MiB a scaled scan is no copy but computed as napari asks, and labels are mapped."""

_FLOAT32 = np.dtype(np.float32)


class ScaledArray(NDArrayOperatorsMixin):
    """Stored voxels times slope plus intercept, for reading only: a slice is computed when asked.

    A dask array does this chunk by chunk: with one chunk per axial slice, a coronal slice of 2 GB
    reads and keeps everything (7 s and 4 GB against 10 ms and none). Functions that need all
    voxels (`np.max`, `astype`) get a full copy by `np.asarray`.

    Args:
        stored: a memory map, a strided view of one, or any array that gives slices.
        slope: unit per stored step.
        intercept: the unit's value of a stored 0.
        dtype: type of the result, as `scaled_dtype` gives it.
    """

    def __init__(self, stored: Any, slope: float, intercept: float, dtype: np.dtype) -> None:
        self.stored = stored
        self.slope = float(slope)
        self.intercept = float(intercept)
        self.dtype = np.dtype(dtype)

    @property
    def shape(self) -> tuple[int, ...]:
        """As stored."""
        return tuple(self.stored.shape)

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of voxels."""
        return int(np.prod(self.shape, dtype=np.int64))

    @property
    def nbytes(self) -> int:
        """Bytes that a copy would take."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        part = scaled(np.asarray(self.stored[key]), self.slope, self.intercept, self.dtype)
        return part[()]

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if copy is False:
            raise ValueError("scaled voxels are always a copy")
        values = scaled(np.asarray(self.stored), self.slope, self.intercept, self.dtype)
        return values if dtype is None else values.astype(dtype, copy=False)

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        arrays = [np.asarray(one) if isinstance(one, ScaledArray) else one for one in inputs]
        return getattr(ufunc, method)(*arrays, **kwargs)

    def __deepcopy__(self, memo: dict[int, Any]) -> ScaledArray:
        return ScaledArray(self.stored, self.slope, self.intercept, self.dtype)

    def astype(self, dtype: Any, copy: bool = True) -> np.ndarray:
        """Give all voxels in another type, in memory."""
        return np.asarray(self).astype(dtype, copy=False)


def scaled_dtype(
    dtype: np.dtype, slope: float, intercept: float, ends: tuple[float, float] | None = None
) -> np.dtype:
    """Choose the type for scaled voxels: whole numbers where all are whole, else float32.

    Args:
        dtype: as stored.
        slope: unit per stored step.
        intercept: the unit's value of a stored 0.
        ends: the smallest and largest stored number; those of the type if they are not known.

    Returns:
        int16, int32 or float32.
    """
    whole = float(slope).is_integer() and float(intercept).is_integer()
    if not whole or not np.issubdtype(dtype, np.integer):
        return _FLOAT32
    if ends is None:
        ends = float(np.iinfo(dtype).min), float(np.iinfo(dtype).max)
    units = [end * slope + intercept for end in ends]
    for kind in (np.int16, np.int32):
        if np.iinfo(kind).min <= min(units) and max(units) <= np.iinfo(kind).max:
            return np.dtype(kind)
    return _FLOAT32


def scaled(stored: np.ndarray, slope: float, intercept: float, dtype: np.dtype) -> np.ndarray:
    """Scale stored voxels into a new array of the same layout, a slab at a time.

    Args:
        stored: any shape.
        slope: unit per stored step.
        intercept: the unit's value of a stored 0.
        dtype: from `scaled_dtype`.

    Returns:
        A new array.
    """
    values = np.empty_like(stored, dtype=dtype, order="K", subok=False)
    if stored.ndim < 3:
        values[...] = _scaled_slab(stored, slope, intercept, dtype)
        return values
    axis = int(np.argmax(np.abs(values.strides)))
    slabs, results = np.moveaxis(stored, axis, 0), np.moveaxis(values, axis, 0)
    for slab, result in zip(slabs, results, strict=True):
        result[...] = _scaled_slab(slab, slope, intercept, dtype)
    return values


def _scaled_slab(slab: np.ndarray, slope: float, intercept: float, dtype: np.dtype) -> np.ndarray:
    if dtype.kind in "iu":
        return slab.astype(np.int64) * int(slope) + int(intercept)
    values = slab.astype(np.float32)
    values *= np.float32(slope)
    values += np.float32(intercept)
    return values


def paintable(view: np.ndarray) -> np.ndarray | None:
    """Give a writable view of a mapped file that leaves the file alone.

    Pages that are painted on are copied into memory (copy on write), the others stay mapped.

    Args:
        view: any strided view of a memory map.

    Returns:
        The same voxels, writable; None if they are not mapped or the file is gone.
    """
    root: Any = view
    while isinstance(getattr(root, "base", None), np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or not root.filename:
        return None
    try:
        private = np.memmap(
            root.filename, dtype=np.uint8, mode="c", offset=root.offset, shape=(root.nbytes,)
        )
    except (OSError, ValueError):
        return None
    start = view.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    return np.ndarray(view.shape, view.dtype, buffer=private, offset=start, strides=view.strides)
