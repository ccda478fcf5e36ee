"""Where the body is in a scan, so that no time goes into the air around it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from spad.models.resize import resize

COARSE_MM = 12.0
THRESHOLD = 0.1
"""In [0, 1]: above this a coarse cell is body; air and the noise around an MR stay below."""
MARGIN = 2
"""Coarse cells that are kept around the body."""
LARGEST_SHARE = 0.7
"""Of all cells above the threshold: less than this in one piece is no clear body."""
SMALLEST_SHARE = 0.05
"""Of the scan: a smaller piece is no clear body."""

Slices = tuple[slice, slice, slice]


def tissue(unit: np.ndarray, spacing: tuple[float, float, float]) -> np.ndarray:
    """Tell tissue from air, coarsely.

    Args:
        unit: (D, H, W) float32 in [0, 1].
        spacing: in mm.

    Returns:
        Booleans on a grid of cells of about `COARSE_MM` with the same outer edges.
    """
    cells = [
        max(1, min(n, round(n * s / COARSE_MM))) for n, s in zip(unit.shape, spacing, strict=True)
    ]
    return resize(torch.from_numpy(unit)[None, None], cells)[0, 0].numpy() > THRESHOLD


def body_box(found: np.ndarray, shape: Sequence[int]) -> Slices:
    """Find the box around the largest piece of tissue.

    Args:
        found: what `tissue` gave.
        shape: of the scan.

    Returns:
        The box with a margin, or all of the scan where no body is clear.
    """
    whole = tuple(slice(0, n) for n in shape)
    pieces, count = ndimage.label(found)
    if not count:
        return whole  # type: ignore[return-value]
    sizes = np.bincount(pieces.ravel())[1:]
    largest = int(sizes.argmax())
    if sizes[largest] < max(LARGEST_SHARE * sizes.sum(), SMALLEST_SHARE * found.size):
        return whole  # type: ignore[return-value]
    around = ndimage.find_objects(pieces)[largest]
    z, y, x = (
        slice(
            int(np.floor(max(part.start - MARGIN, 0) * n / c)),
            int(np.ceil(min(part.stop + MARGIN, c) * n / c)),
        )
        for part, n, c in zip(around, shape, found.shape, strict=True)
    )
    return z, y, x


def holds_tissue(found: np.ndarray, shape: Sequence[int], part: Slices) -> bool:
    """Tell whether a part of a scan holds more than air, by what `tissue` gave for the scan."""
    cells = tuple(
        slice(one.start * c // n, -(-one.stop * c // n))
        for one, n, c in zip(part, shape, found.shape, strict=True)
    )
    return bool(found[cells].any())
