"""Which tokens are hidden, and what one could guess of them without a model."""

from __future__ import annotations

import numpy as np
from scipy import sparse
from scipy.spatial import cKDTree

from spad.data.model_input import UnitVolume
from spad.errors import SpadError
from spad.inference.codes import TokenGrid
from spad.losses.masked import random_mask
from spad.volumes.axes import from_canonical, to_canonical
from spad.volumes.volume import Volume

TIE = 1e-6
CHUNK = 4096
"""Hidden tokens whose neighbours are averaged at a time."""


def drawn_mask(grid: TokenGrid, ratio: float, seed: int) -> np.ndarray:
    """Hide tokens at random: a function of grid, ratio and seed alone.

    Returns:
        (z, y, x) booleans, True where hidden; int(tokens * (1 - ratio)) are visible.

    Raises:
        SpadError: the ratio hides nothing or is no share.
    """
    if not 0 < ratio <= 1:
        raise SpadError(
            f"The share of tokens to hide is {ratio}; give a number above 0 and at most 1."
        )
    tokens = int(np.prod(grid.shape))
    return random_mask(tokens, ratio, np.random.default_rng(seed)).reshape(grid.shape)


def painted_mask(paint: Volume, scan: Volume, unit: UnitVolume, grid: TokenGrid) -> np.ndarray:
    """Hide the tokens that hold a painted voxel.

    Args:
        paint: 3D labels on the scan's grid; any voxel that is not zero is painted.
        scan: the scan, 3D.
        unit: the scan in [0, 1].
        grid: its tokens.

    Returns:
        (z, y, x) booleans, True where hidden.

    Raises:
        SpadError: the labels lie on another grid, or nothing is painted.
    """
    painted = _on_grid_of(paint, scan)
    view, _ = to_canonical(scan.with_array(painted), depth_first=True)
    masked: np.ndarray = view
    for axis, (n, full) in enumerate(zip(grid.shape, unit.frame.full_size, strict=True)):
        edges = np.arange(n) * grid.factors[axis] * unit.frame.factors[axis]
        starts = np.minimum(edges.astype(np.intp), full - 1)
        masked = np.logical_or.reduceat(masked, starts, axis=axis)
    if not masked.any():
        raise SpadError(
            "Nothing is painted in the labels that choose the hidden tokens (all voxels are 0); "
            "paint over what the model should fill in."
        )
    return masked


def neighbour_guess(probabilities: np.ndarray, masked: np.ndarray) -> np.ndarray:
    """Guess each hidden token as the mean of the visible tokens nearest to it.

    Nearest is by distance in tokens; all that are equally near count.

    Args:
        probabilities: (z, y, x, K).
        masked: (z, y, x) booleans, at least one False.

    Returns:
        (N, K) float32 for the hidden tokens, in C order.
    """
    visible, hidden = np.argwhere(~masked), np.argwhere(masked)
    known = probabilities[~masked]
    tree = cKDTree(visible)
    guess = np.empty((len(hidden), probabilities.shape[-1]), np.float32)
    for start in range(0, len(hidden), CHUNK):
        part = hidden[start : start + CHUNK]
        distance, _ = tree.query(part)
        near = tree.query_ball_point(part, distance + TIE)
        counts = np.array([len(n) for n in near])
        columns = np.concatenate([np.asarray(n, np.intp) for n in near])
        shares = np.repeat(1 / counts, counts).astype(np.float32)
        rows = np.repeat(np.arange(len(part)), counts)
        mean = sparse.csr_matrix((shares, (rows, columns)), shape=(len(part), len(visible)))
        guess[start : start + CHUNK] = mean @ known
    return guess


def _on_grid_of(paint: Volume, scan: Volume) -> np.ndarray:
    """The painted voxels along the axes of the scan's array, whichever axis either has as depth."""
    view, affine = to_canonical(paint, depth_first=False)
    wanted, scan_affine = to_canonical(scan, depth_first=False)
    if view.shape != wanted.shape or not np.allclose(affine, scan_affine, atol=1e-3):
        raise SpadError(
            f"The painted labels lie on another grid (shape {paint.spatial_shape}) than the scan "
            f"(shape {scan.spatial_shape}); give labels that were painted on this scan."
        )
    return from_canonical(view != 0, scan, depth_first=False)
