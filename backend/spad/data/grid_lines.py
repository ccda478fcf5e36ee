"""Resampling to a straight grid, axis by axis: what one interpolation in 3D gives, and faster."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch


def at_lines(
    array: torch.Tensor, places: Sequence[np.ndarray], *, nearest: bool = False
) -> torch.Tensor:
    """Take an array's values where the lines of a straight grid cross.

    Args:
        array: (..., D, H, W).
        places: for each of the last three axes the voxels at which its lines lie, (n,) each;
            those beyond the array count as at its edge.
        nearest: take the nearest value instead of interpolating linearly.

    Returns:
        (..., d, h, w) float32, on the array's device.
    """
    made, sides = array, array.shape[-3:]
    inside = [np.clip(place, 0, n - 1) for place, n in zip(places, sides, strict=True)]
    if nearest:
        inside = [np.floor(place + 0.5) for place in inside]
    for axis, place in enumerate(inside):
        # what lies outside of all lines is not looked at
        low = int(place.min())
        high = min(int(np.ceil(place.max())) + 1, sides[axis])
        made = made.narrow(axis - 3, low, high - low)
        inside[axis] = place - low
    # the axis of which the least is left goes first
    for axis in sorted(range(3), key=lambda one: len(inside[one]) / made.shape[one - 3]):
        made = _along(made, axis - 3, inside[axis], nearest)
    return made.float()


def _along(array: torch.Tensor, axis: int, place: np.ndarray, nearest: bool) -> torch.Tensor:
    count = array.shape[axis]

    def rows(at: np.ndarray) -> torch.Tensor:
        return array.index_select(axis, torch.from_numpy(at.astype(np.int64)).to(array.device))

    if nearest or count == 1:
        return rows(place)
    first = np.minimum(np.floor(place), count - 2)
    share = torch.from_numpy((place - first).astype(np.float32)).to(array.device)
    share = share.view([-1 if n == axis + 3 else 1 for n in range(3)])
    return torch.lerp(rows(first).float(), rows(first + 1).float(), share)
