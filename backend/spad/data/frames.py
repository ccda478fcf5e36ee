"""The grid on which a model sees a scan, and labels on the way there and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from spad.data.channels import one_phase
from spad.volumes.anisotropy import FLAT, degree_of_anisotropy
from spad.volumes.axes import from_canonical, to_canonical
from spad.volumes.volume import Volume

Size = tuple[int, int, int]
Spacing = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class WorkingFrame:
    """Where a model sees a scan: canonical axes, depth first, at the working spacing.

    Attributes:
        size: voxels along depth, height and width.
        spacing: in mm along the same.
        affine: (4, 4), index to RAS+ mm.
        full_size: voxels before resampling, along the same axes.
        da: degree of anisotropy of this grid; 5 for a single slice.
    """

    size: Size
    spacing: Spacing
    affine: np.ndarray
    full_size: Size
    da: int

    @property
    def factors(self) -> Spacing:
        """How many voxels of the scan there are in one of this grid, per axis."""
        z, y, x = (old / new for old, new in zip(self.full_size, self.size, strict=True))
        return z, y, x


def working_grid(
    shape: Sequence[int], spacing: Sequence[float], working_spacing: Mapping[str, Any] | None
) -> tuple[Size, Spacing]:
    """Find the grid on which a model works; its outer edges are those of the scan.

    Args:
        shape: voxels, depth first.
        spacing: in mm, depth first.
        working_spacing: `{"in_plane": mm}`: both in-plane axes get that spacing as nearly as whole
            voxels allow, and depth too where it is finer; with `"isotropic": True` depth gets it
            in any case, but for single slices. Without `in_plane` the in-plane spacing stays. None
            leaves all as it is.

    Returns:
        Size and spacing, depth first.
    """
    rule = working_spacing or {}
    isotropic = bool(rule.get("isotropic"))
    target = rule.get("in_plane") or (min(spacing[1:]) if isotropic else None)
    if target is None:
        z, y, x = (int(n) for n in shape)
        return (z, y, x), (float(spacing[0]), float(spacing[1]), float(spacing[2]))
    sizes, spacings = [], []
    for axis, (n, s) in enumerate(zip(shape, spacing, strict=True)):
        kept = axis == 0 and ((s >= target and not isotropic) or n == 1)
        least = 2 if axis == 0 and isotropic else 1
        size = int(n) if kept else max(least, round(n * s / float(target)))
        sizes.append(size)
        spacings.append(float(n * s / size))
    return (sizes[0], sizes[1], sizes[2]), (spacings[0], spacings[1], spacings[2])


def working_frame(volume: Volume, working_spacing: Mapping[str, Any] | None) -> WorkingFrame:
    """Find where a model sees a volume; see `working_grid`.

    `"da"` in `working_spacing` is the degree of anisotropy that the model is told, whatever the
    spacing is.
    """
    view, affine = to_canonical(volume, depth_first=True)
    z, y, x = view.shape[-3:]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    size, new_spacing = working_grid((z, y, x), spacing.tolist(), working_spacing)
    factors = [old / new for old, new in zip((z, y, x), size, strict=True)]
    stated = (working_spacing or {}).get("da")
    da = FLAT if size[0] == 1 else degree_of_anisotropy(new_spacing)
    da = da if stated is None else int(stated)
    return WorkingFrame(size, new_spacing, coarser_affine(affine, factors), (z, y, x), da)


def coarser_affine(affine: np.ndarray, factors: Sequence[float]) -> np.ndarray:
    """Give the affine of a grid that is coarser by `factors` and starts at the same outer edge."""
    step = np.diag([*(float(f) for f in factors), 1.0])
    step[:3, 3] = [(float(f) - 1) / 2 for f in factors]
    return np.asarray(np.asarray(affine, float) @ step)


def labels_on_working_grid(
    labels: Volume, working_spacing: Mapping[str, Any] | None, *, phase: int = 0
) -> np.ndarray:
    """Sample labels at the voxel centres of the working grid.

    Args:
        labels: whole numbers on the scan's grid.
        working_spacing: as in the card.
        phase: which time of 4D labels.

    Returns:
        (D, H, W) in the stored type, on the grid that `unit_volume` gives for the scan.
    """
    labels = one_phase(labels, phase)
    frame = working_frame(labels, working_spacing)
    view, _ = to_canonical(labels, depth_first=True)
    return np.ascontiguousarray(view[_nearest(frame.full_size, frame.size)])


def labels_to_source(labels: np.ndarray, volume: Volume) -> np.ndarray:
    """Bring labels of a working grid back onto the scan's own grid (nearest voxel).

    Args:
        labels: (D, H, W) on the working grid of `volume`, of whatever spacing.
        volume: the scan.

    Returns:
        A new array with the three spatial axes of `volume.array`.
    """
    frame = working_frame(volume, None)
    full = labels[_nearest(labels.shape, frame.size)]
    return np.ascontiguousarray(from_canonical(full, volume, depth_first=True))


def _nearest(present: Sequence[int], wanted: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Index of the present voxel under the centre of each wanted one, for `np.ix_`."""
    return np.ix_(
        *(
            np.minimum(((np.arange(new) + 0.5) * (old / new)).astype(np.intp), old - 1)
            for old, new in zip(present, wanted, strict=True)
        )
    )
