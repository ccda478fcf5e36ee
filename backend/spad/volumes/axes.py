"""Orders of axes: of the file, of `Volume.array`, and the canonical one of screens and models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from spad.errors import SpadError

if TYPE_CHECKING:
    from spad.volumes.volume import SourceGrid, Volume

CANONICAL = "IPL"
"""Letters towards which the indices of canonical axes increase: S to I, A to P, R to L."""

_LETTERS = (("L", "R"), ("P", "A"), ("I", "S"))


def axis_assignment(affine: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair each index axis with the nearest world axis, as nibabel's `io_orientation` does.

    Args:
        affine: (4, 4), spatial index to RAS+ mm, invertible.

    Returns:
        `(world, sign)`, each of three: the world axis (0 = R, 1 = A, 2 = S) that an index axis
        is nearest to, and +1 or -1 for the direction in which it runs along it.
    """
    matrix = np.asarray(affine, float)[:3, :3]
    u, _, vt = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0))
    rotation = u @ vt
    world = np.full(3, -1)
    sign = np.ones(3, int)
    left = np.abs(rotation)
    # the axis that is nearest to any goes first, so that their order plays no part
    for axis in np.argsort(-np.max(rotation**2, axis=0), kind="stable"):
        best = int(np.argmax(left[:, axis]))
        world[axis] = best
        sign[axis] = -1 if rotation[best, axis] < 0 else 1
        left[best] = -1
    return world, sign


def orientation_letters(affine: np.ndarray) -> str:
    """Name the directions in which the indices increase, as `nibabel.aff2axcodes` does."""
    world, sign = axis_assignment(affine)
    return "".join(_LETTERS[int(w)][int(s > 0)] for w, s in zip(world, sign, strict=True))


def degrees_off_axis(affine: np.ndarray) -> float:
    """Give the largest angle in degrees between an index axis and its nearest world axis."""
    matrix = np.asarray(affine, float)[:3, :3]
    matrix = matrix / np.linalg.norm(matrix, axis=0)
    world, _ = axis_assignment(affine)
    along = np.abs(matrix[world, np.arange(3)])
    across = np.sqrt(np.maximum((matrix**2).sum(0) - along**2, 0))
    return float(np.degrees(np.arctan2(across, along)).max())


def shear_degrees(affine: np.ndarray) -> float:
    """Give how far the angle between any two index axes is from 90 degrees (a gantry's tilt)."""
    matrix = np.asarray(affine, float)[:3, :3]
    matrix = matrix / np.linalg.norm(matrix, axis=0)
    between = matrix.T @ matrix
    largest = max(abs(between[0, 1]), abs(between[0, 2]), abs(between[1, 2]))
    return float(np.degrees(np.arcsin(min(1.0, largest))))


def to_file_order(array: np.ndarray, source: SourceGrid) -> np.ndarray:
    """Bring an array from the axes of `Volume.array` to those of the source file.

    Args:
        array: on the source's grid in the order of `Volume.array`; its leading axes may be
            missing (one labels volume for all times or channels), the three spatial axes may not.
        source: the grid that was read.

    Returns:
        A view in file order (i, j, k[, t][, c]) with the file's shape.

    Raises:
        SpadError: the array does not have the grid's shape.
    """
    permutation, flips, shape = _layout(array.ndim, source)
    expected = tuple(shape[p] for p in permutation)
    if array.shape != expected:
        raise SpadError(
            f"An array of shape {array.shape} was given for a source grid that needs {expected}; "
            "give data that lie on the scan's own grid."
        )
    view = _flip(array, flips).transpose([int(axis) for axis in np.argsort(permutation)])
    if array.ndim == len(source.permutation):
        return view.reshape(source.shape)
    return view.reshape(source.shape[: array.ndim])


def from_file_order(array: np.ndarray, source: SourceGrid) -> np.ndarray:
    """Bring an array from the source file's axes to those of `Volume.array`.

    The exact inverse of `to_file_order`.

    Args:
        array: in file order (i, j, k[, t][, c]) with the file's shape; the last axes may be
            missing.
        source: the grid that was read.

    Returns:
        A view with depth first, the other two spatial axes in file order, time and channels
        before them.

    Raises:
        SpadError: the array does not have the file's shape.
    """
    own = tuple(source.shape)
    ndim = len(source.permutation) if array.shape == own else max(3, array.ndim)
    permutation, flips, shape = _layout(ndim, source)
    if array.shape not in (own, shape, own[: array.ndim]):
        raise SpadError(
            f"An array of shape {array.shape} was given for a source file of shape {own}; give "
            "data that lie on the scan's own grid."
        )
    return _flip(array.reshape(shape).transpose(permutation), flips)


def canonical_order(affine: np.ndarray, depth_first: bool) -> tuple[list[int], list[bool]]:
    """Find the axes and flips that turn `Volume.array` axes into canonical ones.

    Args:
        affine: (4, 4), index of the three spatial axes (depth first) to RAS+ mm.
        depth_first: whether the depth axis comes first, else the order is S-I, A-P, R-L.

    Returns:
        `(order, flips)`: canonical axis n is spatial axis `order[n]`, reversed if `flips[n]`.
    """
    world, sign = axis_assignment(affine)
    order = [int(np.flatnonzero(world == w)[0]) for w in (2, 1, 0)]
    if depth_first:
        order = [0] + [axis for axis in order if axis != 0]
    flips = [bool(sign[axis] > 0) for axis in order]
    return order, flips


def to_canonical(volume: Volume, depth_first: bool) -> tuple[np.ndarray, np.ndarray]:
    """View a volume along S to I, A to P and R to L (the nearest axes of an oblique scan).

    Args:
        volume: any volume; leading time or channel axes stay in front.
        depth_first: False for the order that a layer shows (S-I, A-P, R-L), True for the order
            that models want (the depth axis first, the other two in that order).

    Returns:
        A strided view of `volume.array` and the (4, 4) affine from its spatial index to RAS+ mm.
    """
    order, flips = canonical_order(volume.affine, depth_first)
    leading = volume.array.ndim - 3
    axes = [*range(leading), *(leading + axis for axis in order)]
    view = _flip(volume.array.transpose(axes), [False] * leading + flips)
    return view, canonical_affine(volume.affine, volume.spatial_shape, depth_first)


def canonical_affine(affine: np.ndarray, shape: Sequence[int], depth_first: bool) -> np.ndarray:
    """Give the affine of the view that `to_canonical` makes of a grid of this shape."""
    order, flips = canonical_order(affine, depth_first)
    step = np.zeros((4, 4))
    step[3, 3] = 1
    for new, (old, flip) in enumerate(zip(order, flips, strict=True)):
        step[old, new] = -1 if flip else 1
        step[old, 3] = shape[old] - 1 if flip else 0
    return np.asarray(np.asarray(affine, float) @ step)


def from_canonical(array: np.ndarray, volume: Volume, depth_first: bool) -> np.ndarray:
    """Bring a canonical array back to the axes of `volume.array`.

    Args:
        array: with the three canonical spatial axes last, any leading axes before them.
        volume: the volume whose grid it lies on.
        depth_first: as it was given to `to_canonical`.

    Returns:
        A strided view in the axes of `volume.array`.

    Raises:
        SpadError: the array's spatial shape is not the volume's.
    """
    order, flips = canonical_order(volume.affine, depth_first)
    expected = tuple(volume.spatial_shape[axis] for axis in order)
    if array.shape[-3:] != expected:
        raise SpadError(
            f"A canonical array of shape {array.shape} was given for a scan that needs {expected} "
            "along its last three axes; give data that lie on the scan's own grid."
        )
    leading = array.ndim - 3
    view = _flip(array, [False] * leading + flips)
    back = [*range(leading), *(leading + int(axis) for axis in np.argsort(order))]
    return view.transpose(back)


def _layout(
    ndim: int, source: SourceGrid
) -> tuple[tuple[int, ...], tuple[bool, ...], tuple[int, ...]]:
    """Give permutation, flips and file shape of an array that may lack channels or all but space.

    An array of the three spatial axes lies on every grid; one with times alone lies on a grid
    with times and channels.
    """
    permutation, flips = source.permutation, source.flips
    full = len(permutation)
    shape = (*source.shape, *(1,) * full)[:full]
    if ndim == full:
        return permutation, flips, shape
    if ndim in (3, 4) and ndim < full:
        kept = [axis for axis in range(full) if axis >= full - 3 or (ndim == 4 and axis == 0)]
        return (
            tuple(permutation[axis] for axis in kept),
            tuple(flips[axis] for axis in kept),
            shape[:ndim],
        )
    raise SpadError(
        f"An array with {ndim} axes was given for a source grid with {full}; give data that lie "
        "on the scan's own grid."
    )


def _flip(array: np.ndarray, flips: Sequence[bool]) -> np.ndarray:
    return array[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]
