"""Whether two open scans lie truly over each other, and putting one onto the other's grid."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_spad import grids, layers
from spad.errors import SpadError
from spad.volumes.axes import canonical_affine

if TYPE_CHECKING:
    from napari.layers import Layer

    from spad.volumes.volume import Volume

_OF_A_VOXEL = 0.5
_EQUAL_MM = 0.01


def misfit(one: grids.Grid, other: grids.Grid) -> float:
    """Give how far apart two grids' places are that napari draws over each other.

    Tilted and sheared scans are shown on their own voxel grids, so that two of them may not
    overlay.

    Args:
        one: the grid of an open scan.
        other: that of another.

    Returns:
        The largest distance in mm where both are shown; 0 if nothing is shown of both.
    """
    starts, ends = zip(*(_box(grid.placement) for grid in (one, other)), strict=True)
    start, end = np.max(starts, axis=0), np.min(ends, axis=0)
    if np.any(start > end):
        return 0.0
    corners = np.array(np.meshgrid(*zip(start, end, strict=True))).reshape(3, -1)
    return float(np.linalg.norm(_world(one, corners) - _world(other, corners), axis=0).max())


def fits(one: grids.Grid, other: grids.Grid) -> bool:
    """Whether two grids lie over each other to within half a voxel."""
    finest = min(float(grid.placement.scale.min()) for grid in (one, other))
    return misfit(one, other) <= _OF_A_VOXEL * finest


def misfits(layer: Layer, others: Iterable[Layer]) -> list[Layer]:
    """Give the visible scans that a scan does not lie over as it truly should.

    Of several on the same voxels the first one stands for all.
    """
    own = layers.grid_of_layer(layer)
    found: dict[Layer, grids.Grid] = {}
    for other in others:
        grid = None if other is layer or not other.visible else layers.grid_of_layer(other)
        if own is None or grid is None or fits(own, grid):
            continue
        if not any(_same(grid, known) for known in found.values()):
            found[other] = grid
    return list(found)


def resampler(layer: Layer, onto: Layer) -> Callable[[], Volume]:
    """Prepare to put the voxels of a layer onto the grid of another layer's scan.

    Args:
        layer: an image or labels on an open grid.
        onto: a layer on the grid that is wanted.

    Returns:
        What does it, in any thread.

    Raises:
        SpadError: one of them lies on no open grid.
    """
    grid = layers.grid_of_layer(onto)
    if grid is None:
        raise SpadError(
            f"{onto.name!r} lies on the grid of no open scan; choose a scan that was opened here."
        )
    volume, target = layers.volume_of(layer), grid.volume

    def work() -> Volume:
        from spad.volumes.resample import resample

        return resample(volume, target)

    return work


def _same(one: grids.Grid, other: grids.Grid) -> bool:
    """Whether two grids have the same voxels."""
    place = other.placement
    meta = {"scale": place.scale, "translate": place.translate}
    return one.placement.matches(place.shape, meta) and misfit(one, other) < _EQUAL_MM


def _box(placement: grids.Placement) -> tuple[np.ndarray, np.ndarray]:
    """Give where napari draws the first and the last voxel's outer faces."""
    start = placement.translate - placement.scale / 2
    return start, start + placement.scale * np.array(placement.shape)


def _world(grid: grids.Grid, places: np.ndarray) -> np.ndarray:
    """Give the true R, A, S of places (3, n) in napari's world, by a grid's affine."""
    volume: Any = grid.volume
    affine = canonical_affine(volume.affine, volume.spatial_shape, depth_first=False)
    index = (places - grid.placement.translate[:, None]) / grid.placement.scale[:, None]
    return np.asarray(affine[:3, :3] @ index + affine[:3, 3:])
