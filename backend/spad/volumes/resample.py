"""Resampling: one scan onto another's grid, so that oblique scans lie over each other exactly."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Callable
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.volume import Volume

AIR_HU = -1024.0


def resample(
    volume: Volume, onto: Volume, *, progress: Callable[[float], None] | None = None
) -> Volume:
    """Put a scan, or labels, onto another scan's voxel grid.

    The voxels are looked up with SimpleITK through one affine map from index to index, so that
    tilted and even sheared grids (gantry tilt), whose directions ITK refuses, are exact.

    Args:
        volume: images are interpolated linearly, labels take the nearest voxel. Each time and
            each channel of a series is resampled by itself.
        onto: whose grid is taken; its voxels play no part.
        progress: called with the fraction done; what it raises stops the work.

    Returns:
        A volume with the shape and affine of `onto`: labels on its very source grid, a scan on a
        source grid of its own that is written alike. Integers stay integers (rounded); where
        `volume` has no voxel there is background 0 for labels, air (-1024 HU) for CT, else the
        lowest value of the scan.

    Raises:
        SpadError: the two do not meet anywhere, or there is not enough memory.
    """
    _check_they_meet(volume, onto)
    leading, dtype = volume.array.shape[:-3], _type_of(volume)
    try:
        resampler = _resampler(volume, onto)
        found = np.empty((*leading, *onto.spatial_shape), dtype)
        places = list(np.ndindex(*leading))
        for done, place in enumerate(places):
            if progress is not None:
                progress(done / len(places))
            voxels = np.asarray(volume.array[place])
            found[place] = _block(voxels, resampler, volume.is_labels, dtype)
    except MemoryError as error:
        raise SpadError(
            f"Resampling onto a grid of {_size(onto)} voxels needs more memory than there is; "
            "close other scans, or resample onto a smaller one."
        ) from error
    if progress is not None:
        progress(1.0)
    return _on_grid(volume, onto, found)


def background(volume: Volume) -> float:
    """Give the stored value of what lies outside a volume: 0, air, or its lowest value."""
    if volume.is_labels or volume.rgb:
        return 0.0
    low, high = _stored_range(volume)
    if volume.modality == "CT" and volume.slope > 0:
        air = (AIR_HU - volume.intercept) / volume.slope
        dtype = volume.array.dtype
        if dtype.kind == "f" or np.iinfo(dtype).min <= air <= np.iinfo(dtype).max:
            return float(air)
    return low if volume.slope > 0 else high


def _resampler(volume: Volume, onto: Volume) -> Any:
    """Prepare ITK's filter on grids of unit spacing without direction."""
    import SimpleITK as sitk

    to_source = np.linalg.inv(volume.affine) @ onto.affine
    # ITK counts x, y, z
    turned = to_source[[2, 1, 0, 3]][:, [2, 1, 0, 3]]
    transform = sitk.AffineTransform(3)
    transform.SetMatrix(turned[:3, :3].ravel().tolist())
    transform.SetTranslation(turned[:3, 3].tolist())
    resampler = sitk.ResampleImageFilter()
    resampler.SetSize([int(n) for n in onto.spatial_shape[::-1]])
    resampler.SetTransform(transform)
    resampler.SetDefaultPixelValue(background(volume))
    return resampler


def _block(voxels: np.ndarray, resampler: Any, labels: bool, dtype: np.dtype) -> np.ndarray:
    """Resample one block (z, y, x) of stored voxels, to be kept in the type `dtype`."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(np.ascontiguousarray(voxels, dtype=_working_type(dtype, labels)))
    nearest = labels or not _is_finite(voxels)
    resampler.SetInterpolator(sitk.sitkNearestNeighbor if nearest else sitk.sitkLinear)
    resampler.SetOutputPixelType(image.GetPixelID())
    moved = resampler.Execute(image)
    # a view of its memory: it has to live as long
    values = sitk.GetArrayViewFromImage(moved)
    # a rounded value between two stored ones fits their type
    rounds = dtype.kind in "iu" and values.dtype.kind == "f"
    return (np.rint(values) if rounds else values).astype(dtype)


def _working_type(dtype: np.dtype, labels: bool) -> np.dtype:
    """Give the type in which ITK works: exact for labels, else floats that hold the voxels."""
    if labels and dtype.kind in "iu":
        return dtype
    exact = dtype == np.float32 or dtype.itemsize <= 2
    return np.dtype(np.float32 if exact else np.float64)


def _on_grid(volume: Volume, onto: Volume, found: np.ndarray) -> Volume:
    """Put the voxels on the other's grid, with all that was known about the scan."""
    source = onto.source
    if not volume.is_labels:
        # a scan of its own, though on the same grid
        source = dataclasses.replace(source, path=None, uuid=uuid.uuid4().hex)
    if found.ndim > 3:
        leading = range(3, found.ndim)
        source = dataclasses.replace(
            source,
            path=None,
            format="none",
            shape=(*(*source.shape, 1, 1, 1)[:3], *found.shape[:-3]),
            permutation=(*leading, *source.permutation[-3:]),
            flips=(*(False for _ in leading), *source.flips[-3:]),
            header=None,
            axes="ijk" + volume.axes[:-3],
            uuid=uuid.uuid4().hex,
        )
    return dataclasses.replace(
        onto,
        array=found,
        axes=volume.axes,
        source=source,
        label_names=volume.label_names,
        slope=volume.slope,
        intercept=volume.intercept,
        modality_hint=None if volume.is_labels else volume.modality,
        label_colors=volume.label_colors,
        name=volume.name,
        unit=volume.unit,
        rgb=volume.rgb,
        time_step=volume.time_step,
        window=volume.window,
        report=None,
        notes=(),
    )


def _check_they_meet(volume: Volume, onto: Volume) -> None:
    """Refuse grids that share no voxel: the answer would be background alone."""
    to_source = np.linalg.inv(volume.affine) @ onto.affine
    ends = np.array(onto.spatial_shape) - 1
    corners = np.array(np.meshgrid(*([0, end] for end in ends))).reshape(3, -1)
    found = to_source[:3, :3] @ corners + to_source[:3, 3:]
    last = np.array(volume.spatial_shape) - 1
    if np.any(found.max(axis=1) < -0.5) or np.any(found.min(axis=1) > last + 0.5):
        raise SpadError(
            f"The scan ({_size(volume)} voxels) and the grid it was to be resampled onto "
            f"({_size(onto)} voxels) have no place in common; choose two scans of the same body "
            "part that share a frame of reference."
        )


def _type_of(volume: Volume) -> np.dtype:
    dtype = volume.array.dtype
    return np.dtype(np.uint8) if dtype == np.bool_ else dtype.newbyteorder("=")


def _stored_range(volume: Volume) -> tuple[float, float]:
    array = np.asarray(volume.array)
    if array.dtype.kind == "f":
        array = array[np.isfinite(array)]
    return (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)


def _is_finite(voxels: np.ndarray) -> bool:
    return voxels.dtype.kind != "f" or bool(np.isfinite(voxels).all())


def _size(volume: Volume) -> str:
    return " x ".join(str(n) for n in volume.spatial_shape)
