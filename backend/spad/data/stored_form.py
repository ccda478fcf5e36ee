"""One scan as the store keeps it: canonical axes, cropped to its content, shrunk where too wide.

Source: PUMIT, arXiv 2312.07630, "pre-training, preprocessing": bounding box above percentile 0.5 (0
for pictures), shorter in-plane side at most 512 by area means, depth as it is; of a series of n
volumes each weighs (2n - 1) / n^2. Unlike there, integers stay integers with limits beside them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from spad.data.model_input import in_unit, refuse_labels
from spad.data.reading import LEAST_AIR
from spad.errors import SpadError
from spad.models.resize import resize
from spad.volumes.anisotropy import FLAT, degree_of_anisotropy
from spad.volumes.axes import (
    axis_assignment,
    from_file_order,
    orientation_letters,
    to_canonical,
    to_file_order,
)
from spad.volumes.intensity import CT, MR, Limits
from spad.volumes.statistics import Statistics, stored_statistics
from spad.volumes.volume import Volume

MOST_SPACING = 50.0
"""mm; no scanner has voxels wider than this in plane, or slices farther apart."""
UNEQUAL = 0.01
"""How far in-plane spacings may differ, as a fraction."""
STEPS = 4095
"""Values between 0 and 1 of a scan that is not stored as whole numbers (12 bits)."""
PERCENTS = (0.5, 99.5)


@dataclass(frozen=True, eq=False)
class Stored:
    """What the store keeps of one volume.

    Attributes:
        image: (C, D, H, W) uint8 or int16.
        labels: (D, H, W) uint8, or None.
        spacing: mm along depth, height, width.
        orientation: letters towards which these run.
        da: degree of anisotropy.
        modality: DICOM code or "unknown".
        limits: stored values that become 0 and 1.
        span: percentiles 0.5 and 99.5 of HU, else None.
        figures: mean, median, sd, min, p0_5, p99_5 and max in the scan's unit.
        origin_shape: before cropping and shrinking, depth, height, width.
        origin_spacing: alike.
    """

    image: np.ndarray
    labels: np.ndarray | None
    spacing: tuple[float, float, float]
    orientation: str
    da: int
    modality: str
    limits: Limits
    span: Limits | None
    figures: dict[str, float]
    origin_shape: tuple[int, ...]
    origin_spacing: tuple[float, ...]


def oriented(volume: Volume, orientation: str | None) -> Volume:
    """Choose the depth axis: the data set's own, else the scan's, if in-plane spacings are alike.

    Args:
        volume: the scan.
        orientation: axes from depth to width that its data set fixes (such as "SAR"), or None.

    Raises:
        SpadError: no axis of depth leaves two in-plane spacings that are alike, or one cannot be.
    """
    if volume.spatial_shape[0] == 1:
        return volume
    spacing = volume.spacing
    if not all(0 < s <= MOST_SPACING for s in spacing):
        raise SpadError(f"its spacing is {_mm(spacing)}; expected up to {MOST_SPACING:g} mm.")
    if orientation:
        world = list(axis_assignment(volume.source.affine)[0])
        return volume.with_depth(world.index("RAS".index(orientation[0])))
    if _unequal(volume) > UNEQUAL:
        volume = min((volume.with_depth(axis) for axis in range(3)), key=_unequal)
    if _unequal(volume) > UNEQUAL:
        raise SpadError(
            f"its spacing is {_mm(spacing)}; expected two axes that are alike within "
            f"{UNEQUAL:.0%}, to lie in plane."
        )
    return volume


def parts_of(volume: Volume) -> list[Volume]:
    """Split a series (times or channels) into its volumes; pictures in colour stay whole.

    Raises:
        SpadError: it has both times and channels.
    """
    if volume.axes == "zyx" or (volume.rgb and volume.axes == "czyx"):
        return [volume]
    if volume.axes == "tczyx":
        raise SpadError("it has times and channels; expected one of them.")
    parts = [
        volume.with_array(one, slope=volume.slope, intercept=volume.intercept)
        for one in volume.array
    ]
    return [replace(part, unit=volume.unit, modality_hint=volume.modality) for part in parts]


def stored_form(
    scan: Volume, labels: Volume | None, side: int, modality: str | None = None
) -> Stored:
    """Bring one volume into the form of the store.

    Args:
        scan: one volume (`parts_of`), its depth chosen (`oriented`).
        labels: on the same grid, or None.
        side: most voxels of the shorter in-plane side.
        modality: what the data set states.

    Raises:
        SpadError: all its voxels are alike, or labels lie on another grid.
    """
    modality = modality or scan.modality or "unknown"
    picture = scan.source.format == "image" and scan.array.dtype == np.uint8
    values, affine = _values(scan)
    box = _box(values, picture)
    marks = None if labels is None else _marks(labels, scan)[box]
    size, origin_shape = _size(values[(0, *box)].shape, side), values.shape[1:]
    image = _shrunk(values[(slice(None), *box)], size)
    spacing = tuple(float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))
    kept = tuple(b.stop - b.start for b in box)
    new = tuple(s * old / n for s, old, n in zip(spacing, kept, size, strict=True))
    found = stored_statistics(_plain(image), PERCENTS, None)
    figures = _figures(image, found)
    image, limits, span = _limited(image, found, modality, picture)
    return Stored(
        *(image, None if marks is None else _nearest(marks, size)),
        spacing=(new[0], new[1], new[2]),
        orientation=orientation_letters(affine),
        da=FLAT if size[0] == 1 else degree_of_anisotropy(new),
        modality=modality,
        limits=limits,
        span=span,
        figures=figures,
        origin_shape=origin_shape,
        origin_spacing=spacing,
    )


def _unequal(volume: Volume) -> float:
    _, y, x = volume.spacing
    return abs(y - x) / min(y, x)


def _mm(spacing: tuple[float, ...]) -> str:
    return " x ".join(f"{s:.4g}" for s in spacing) + " mm"


def _values(scan: Volume) -> tuple[np.ndarray, np.ndarray]:
    """Give (C, D, H, W) in the scan's unit, as integers of up to 16 bits where that is exact."""
    view, affine = to_canonical(scan, depth_first=True)
    view = view if view.ndim == 4 else view[None]
    if scan.rgb:
        view = view[:3]
        if (view[:1] == view[1:]).all():
            view = view[:1]
    whole = scan.array.dtype.kind in "iub" and scan.slope % 1 == 0 and scan.intercept % 1 == 0
    if whole:
        ends = [float(e) * scan.slope + scan.intercept for e in (view.min(), view.max())]
        dtype = _integer(min(ends), max(ends))
        if dtype is not None:
            return _filled(view, scan, np.dtype(dtype)), affine
    return _filled(view, scan, np.dtype(np.float32)), affine


def _filled(view: np.ndarray, scan: Volume, dtype: np.dtype) -> np.ndarray:
    values = np.empty(view.shape, dtype)
    for channel, index in np.ndindex(view.shape[:2]):
        values[channel, index] = in_unit(scan, view[channel, index])
    return values


def _integer(low: float, high: float) -> type | None:
    for dtype in (np.uint8, np.int16):
        info = np.iinfo(dtype)
        if info.min <= low and high <= info.max:
            return dtype
    return None


def _plain(values: np.ndarray) -> Volume:
    return Volume.from_array(values.reshape(1, -1, values.shape[-1]), np.eye(4))


def _box(values: np.ndarray, picture: bool) -> tuple[slice, slice, slice]:
    """Find the bounding box of the voxels above the background in all channels."""
    threshold = 0.0
    if not picture:
        threshold = stored_statistics(_plain(values), PERCENTS, None).percentiles[0]
    inside = [np.zeros(n, bool) for n in values.shape[1:]]
    for index in range(values.shape[1]):
        above = np.all(values[:, index] > threshold, axis=0)
        inside[0][index] = above.any()
        inside[1] |= above.any(axis=1)
        inside[2] |= above.any(axis=0)
    if not inside[0].any():
        raise SpadError("(nearly) all its voxels are alike; expected a picture of something.")
    z, y, x = (slice(int(at[0]), int(at[-1]) + 1) for at in map(np.flatnonzero, inside))
    return z, y, x


def _size(shape: tuple[int, ...], side: int) -> tuple[int, int, int]:
    depth, height, width = shape
    factor = min(1.0, side / min(height, width))
    return depth, max(1, round(height * factor)), max(1, round(width * factor))


def _shrunk(values: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    """Shrink in plane by area means, plane by plane; whole numbers are rounded again."""
    if values.shape[1:] == size:
        return np.ascontiguousarray(values)
    shrunk = np.empty((len(values), *size), values.dtype)
    for index in range(size[0]):
        plane = torch.from_numpy(values[:, index].astype(np.float32))[None, :, None]
        small = resize(plane, (1, *size[1:]))[0, :, 0].numpy()
        shrunk[:, index] = small if values.dtype == np.float32 else np.rint(small)
    return shrunk


def _nearest(labels: np.ndarray, size: tuple[int, int, int]) -> np.ndarray:
    index = [
        np.minimum(((np.arange(n) + 0.5) * (old / n)).astype(int), old - 1)
        for old, n in zip(labels.shape, size, strict=True)
    ]
    return np.ascontiguousarray(labels[np.ix_(*index)])


def _marks(labels: Volume, scan: Volume) -> np.ndarray:
    """Bring labels to the canonical grid of their scan, as uint8."""
    if not np.allclose(labels.source.affine, scan.source.affine, atol=1e-3):
        raise SpadError("its labels lie on another grid; expected the scan's own.")
    array = from_file_order(to_file_order(labels.array, labels.source), scan.source)
    view, _ = to_canonical(scan.with_array(array), depth_first=True)
    if view.min() < 0 or view.max() > 255:
        raise SpadError("its labels go beyond 255; expected 0 to 255.")
    return view.astype(np.uint8)


def _figures(image: np.ndarray, found: Statistics) -> dict[str, float]:
    low, high = found.percentiles
    finite = image[np.isfinite(image)] if image.dtype == np.float32 else image
    return {
        "mean": float(finite.mean(dtype=np.float64)),
        "median": float(np.median(finite)),
        "sd": float(finite.std(dtype=np.float64)),
        "min": found.minimum,
        "p0_5": low,
        "p99_5": high,
        "max": found.maximum,
    }


def _limited(
    image: np.ndarray, found: Statistics, modality: str, picture: bool
) -> tuple[np.ndarray, Limits, Limits | None]:
    """Choose limits and type: CT in HU by its window, pictures whole, all else by percentiles."""
    low, high = found.percentiles
    if modality == "CT" and found.minimum <= LEAST_AIR:
        return _as_int16(image), (CT.low, CT.high), (low, high)
    if picture:
        return image, (0.0, 255.0), None
    if high <= low:  # nearly all voxels above the minimum are alike
        low = found.minimum
    if image.dtype != np.float32:
        return image, (low, high), None
    unit = np.rint(MR.to_unit(image, (low, high)) * np.float32(STEPS))
    return unit.astype(np.int16), (0.0, float(STEPS)), None


def _as_int16(image: np.ndarray) -> np.ndarray:
    if image.dtype == np.float32:
        image = np.rint(np.nan_to_num(image, nan=-32768.0))
    return np.clip(image, -32768, 32767).astype(np.int16)


def weight_of_part(count: int) -> float:
    """Give the weight of each volume of a series: one counts once, many at most twice."""
    return (2 * count - 1) / count**2


def volumes_of(
    scan: Volume, labels: Volume | None, side: int, orientation: str | None, modality: str | None
) -> Iterator[Stored]:
    """Give the volumes of a scan one after the other; arguments and errors as above."""
    refuse_labels(scan)
    turned = oriented(scan, orientation)
    for part in parts_of(turned):
        yield stored_form(part, labels, side, modality)
