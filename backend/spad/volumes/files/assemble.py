"""Where every reader ends: from an array in file order and its affine to a checked `Volume`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import from_file_order
from spad.volumes.depth import depth_axis
from spad.volumes.files.options import Options
from spad.volumes.volume import SourceGrid, Volume, checked_affine

FILE_AXES = ("ijk", "ijkt", "ijkc", "ijktc")


def assemble(
    array: Any,
    affine: np.ndarray,
    *,
    axes: str = "ijk",
    path: Path,
    format: str,
    options: Options,
    header: Any = None,
    slice_axis: int | None = None,
    dtype: np.dtype | None = None,
    shape: tuple[int, ...] | None = None,
    **fields: Any,
) -> Volume:
    """Make a volume of what a file holds.

    Args:
        array: in file order, one axis per letter of `axes`; a strided read-only view, a memory map
            or a dask array will do.
        affine: (4, 4), file index (i, j, k) to RAS+ mm; shear (gantry tilt) is kept.
        axes: "ijk", "ijkt", "ijkc" or "ijktc".
        path: the file or folder.
        format: the format's word in `spad info`.
        options: what a person states.
        header: the format's own header, to copy when writing that format.
        slice_axis: the header's slice axis (0, 1 or 2), if it names one.
        dtype: the file's type of voxel, if the array's is another.
        shape: the file's own shape where it has fewer or more axes (of one voxel) than `axes`.
        **fields: more fields of `Volume` (slope, intercept, notes, name, ...).

    Returns:
        The volume, depth first, in this machine's byte order.

    Raises:
        SpadError: the array is empty, no voxel is finite, or the affine cannot be used.
    """
    if axes not in FILE_AXES or array.ndim != len(axes) or 0 in array.shape:
        raise SpadError(
            f"{path} holds an array of shape {tuple(array.shape)} (axes {axes!r}); expected at "
            "least one voxel along two or three axes of space; export it again."
        )
    affine = checked_affine(affine, str(path))
    depth, reason = depth_axis(array.shape[:3], affine, options.depth, slice_axis)
    spatial = (depth, *(other for other in range(3) if other != depth))
    permutation = (*range(3, len(axes)), *spatial)
    source = SourceGrid(
        path=str(path),
        format=format,
        shape=tuple(int(n) for n in (array.shape if shape is None else shape)),
        dtype=np.dtype(array.dtype if dtype is None else dtype),
        affine=affine,
        permutation=permutation,
        flips=(False,) * len(permutation),
        header=header,
        axes=axes,
    )
    array = native(from_file_order(array, source))
    _check_some_finite(array, path)
    return Volume(
        array=array,
        affine=affine[:, [*spatial, 3]],
        axes=axes[3:] + "zyx",
        source=source,
        depth_reason=reason,
        **fields,
    )


def native(array: Any) -> Any:
    """Give voxels in this machine's byte order and in types that numpy and torch both know."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        return array.astype(np.float64)
    if not array.dtype.isnative:
        return array.astype(array.dtype.newbyteorder("="))
    return array


def radiological_affine(spacing: tuple[float, float, float]) -> np.ndarray:
    """Give the affine of data that state no place: i to the left, j to posterior, k to superior.

    This is what ITK gives to files without a direction (identity in LPS).

    Args:
        spacing: mm along i, j and k.

    Returns:
        (4, 4), index to RAS+ mm, the first voxel at the origin.
    """
    return np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])


def lps_to_ras(affine: np.ndarray) -> np.ndarray:
    """Turn an affine to LPS+ mm (DICOM, ITK) into one to RAS+ mm (nibabel), or back."""
    return np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(affine, float)


def _check_some_finite(array: Any, path: Path) -> None:
    """Refuse scans of NaN alone; the middle slice nearly always answers without reading on."""
    if array.dtype.kind != "f":
        return
    middle = tuple(n // 2 for n in array.shape[:-2])
    if np.isfinite(np.asarray(array[middle])).any():
        return
    first = array.reshape(-1, *array.shape[-2:]) if array.ndim > 3 else array
    if any(bool(np.isfinite(np.asarray(plane)).any()) for plane in first):
        return
    raise SpadError(
        f"{path} holds no finite voxel (all are NaN or infinite); expected intensities; export it "
        "again from its source."
    )
