"""From class probabilities on a coarse grid to labels on the fine one, slab by slab.

Interpolation equals `spad.models.resize.resize`, but classes x fine grid never exists in memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

from spad.progress import Progress

SLAB_NUMBERS = 16_000_000
"""Interpolated probabilities that are held at a time."""


@dataclass(frozen=True)
class Line:
    """Linear interpolation along one axis, for a run of fine voxels.

    Attributes:
        start: the first fine voxel.
        lower: coarse voxel at or before each fine centre.
        upper: the one after it (the same at the far end).
        share: weight of the upper one.
    """

    start: int
    lower: torch.Tensor
    upper: torch.Tensor
    share: torch.Tensor

    def __len__(self) -> int:
        return len(self.lower)

    def part(self, first: int, stop: int) -> Line:
        """The same for fewer fine voxels, counted from the first one."""
        run = slice(first, stop)
        return Line(self.start + first, self.lower[run], self.upper[run], self.share[run])

    def apply(self, x: torch.Tensor, dim: int) -> torch.Tensor:
        """Interpolate an axis of a map."""
        if dim == x.ndim - 1:
            # gathering along the innermost axis is many times slower than this product
            return x @ self.matrix(x.shape[dim])
        shape = [1] * x.ndim
        shape[dim] = len(self)
        low, high = x.index_select(dim, self.lower), x.index_select(dim, self.upper)
        return torch.lerp(low, high, self.share.view(shape))

    def matrix(self, coarse: int) -> torch.Tensor:
        """(coarse, fine) weights."""
        fine = torch.arange(len(self))
        matrix = torch.zeros(coarse, len(self))
        matrix[self.lower, fine] = 1 - self.share
        matrix[self.upper, fine] += self.share
        return matrix


def line(coarse: int, fine: int) -> Line:
    """Interpolation between voxel centres of two grids whose outer edges coincide."""
    place = ((torch.arange(fine, dtype=torch.float64) + 0.5) * (coarse / fine) - 0.5).clamp(min=0)
    lower = place.floor().long().clamp(max=coarse - 1)
    upper = (lower + 1).clamp(max=coarse - 1)
    return Line(0, lower, upper, (place - lower).clamp(max=1).float())


def likeliest(
    probabilities: torch.Tensor, ids: Sequence[int], size: Sequence[int], progress: Progress
) -> np.ndarray:
    """Give the likeliest class of every voxel of a finer (or coarser) grid.

    Where background is likelier than anything else at all neighbours it is so between them too, so
    only the box around the other voxels is worked on; and of the classes only those that reach
    1 / classes somewhere in a slab, since the likeliest one does.

    Args:
        probabilities: (classes, D, H, W) float32, adding up to one; the first is background.
        ids: the label of each class, 0 for the background.
        size: the wanted (D, H, W).
        progress: told at every slab.

    Returns:
        (*size) labels in the smallest unsigned type.
    """
    labels = np.zeros(tuple(size), np.min_scalar_type(max(ids)))
    depth, height, width = (min(a, b) for a, b in zip(probabilities.shape[1:], size, strict=True))
    if (depth, height, width) != tuple(probabilities.shape[1:]):
        probabilities = F.adaptive_avg_pool3d(probabilities, (depth, height, width))
    found = probabilities[1:].amax(0) >= probabilities[0] if len(probabilities) > 1 else None
    if found is None or not found.any():
        return labels
    lines = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        lines.append(_near(found.amax(others), size[axis]))
    table = np.asarray(ids, labels.dtype)
    z, y, x = lines
    for part in _slabs(z, len(probabilities) * len(y) * len(x)):
        progress((part.start - z.start) / len(z), "Labelling")
        box = tuple(slice(li.start, li.start + len(li)) for li in (part, y, x))
        labels[box] = table[_winners(probabilities, part, y, x)]
    return labels


def _near(found: torch.Tensor, fine: int) -> Line:
    """The fine voxels whose coarse neighbours hold something."""
    whole = line(len(found), fine)
    touched = (found[whole.lower] | found[whole.upper]).nonzero()[:, 0]
    return whole.part(int(touched[0]), int(touched[-1]) + 1)


def _slabs(z: Line, numbers_per_slice: int) -> Iterator[Line]:
    thick = max(1, SLAB_NUMBERS // max(1, numbers_per_slice))
    for start in range(0, len(z), thick):
        yield z.part(start, min(start + thick, len(z)))


def _winners(probabilities: torch.Tensor, z: Line, y: Line, x: Line) -> np.ndarray:
    """Index of the likeliest class in a slab."""
    region = tuple(slice(int(li.lower.min()), int(li.upper.max()) + 1) for li in (z, y, x))
    coarse = probabilities[(slice(None), *region)]
    reach = coarse.amax((1, 2, 3)) >= 1 / len(probabilities) - 1e-6
    reach[0] = True
    kept = reach.nonzero()[:, 0]
    coarse = coarse[kept]
    for dim, (axis, part) in enumerate(zip((z, y, x), region, strict=True), start=1):
        moved = Line(0, axis.lower - part.start, axis.upper - part.start, axis.share)
        coarse = moved.apply(coarse, dim)
    return kept.numpy()[coarse.numpy().argmax(0)]
