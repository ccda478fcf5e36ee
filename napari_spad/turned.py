"""Voxels of a layer (S-I, A-P, R-L) and voxels of `Volume.array`: there and back, by index."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from spad.prompts.part import Part, Slices
from spad.prompts.prompt import Voxel
from spad.volumes.axes import canonical_order

if TYPE_CHECKING:
    from spad.volumes.volume import Volume


@dataclass(frozen=True)
class Turned:
    """How the axes of a scan's array lie in its layer.

    Attributes:
        order: axis n of the layer is axis `order[n]` of the array ...
        flips: ... reversed if `flips[n]`.
        shape: of the array's spatial axes.
    """

    order: tuple[int, ...]
    flips: tuple[bool, ...]
    shape: tuple[int, int, int]

    @classmethod
    def of(cls, volume: Volume, *, depth_first: bool = False) -> Turned:
        """Read it off a scan; with its depth axis first, the view that models have."""
        order, flips = canonical_order(volume.affine, depth_first)
        depth, height, width = volume.spatial_shape
        return cls(tuple(order), tuple(flips), (depth, height, width))

    def voxel(self, index: Sequence[float] | np.ndarray) -> Voxel:
        """Bring an index of the layer, rounded, to one of the array."""
        made = [0, 0, 0]
        for place, axis, flip in zip(index, self.order, self.flips, strict=True):
            at = int(np.floor(place + 0.5))
            made[axis] = self.shape[axis] - 1 - at if flip else at
        return made[0], made[1], made[2]

    def index(self, voxels: Sequence[Sequence[int]]) -> np.ndarray:
        """Bring (n, 3) voxels of the array to indices of the layer."""
        turned = np.asarray(voxels, int).reshape(-1, 3)[:, list(self.order)].copy()
        for axis, (old, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            if flip:
                turned[:, axis] = self.shape[old] - 1 - turned[:, axis]
        return turned

    def region(self, part: Sequence[slice]) -> Slices:
        """Bring a box of the array to the layer."""
        made = []
        for axis, flip in zip(self.order, self.flips, strict=True):
            one, n = part[axis], self.shape[axis]
            made.append(slice(n - one.stop, n - one.start) if flip else one)
        return made[0], made[1], made[2]

    def box(self, array: np.ndarray) -> np.ndarray:
        """View what fills a box of the array as the layer has it."""
        return self._flipped(array.transpose(self.order))

    def back(self, start: Sequence[int], array: np.ndarray) -> tuple[Voxel, np.ndarray]:
        """Bring a box of the layer to the array: its first voxel and a view of what fills it."""
        first = [0, 0, 0]
        for axis, (old, flip) in enumerate(zip(self.order, self.flips, strict=True)):
            at = int(start[axis])
            first[old] = self.shape[old] - at - array.shape[axis] if flip else at
        turned = self._flipped(array).transpose([int(axis) for axis in np.argsort(self.order)])
        return (first[0], first[1], first[2]), turned

    def part(self, start: Sequence[int], mask: np.ndarray) -> Part:
        """Bring a mask in a box of the layer to the array."""
        return Part(*self.back(start, mask))

    def _flipped(self, array: np.ndarray) -> np.ndarray:
        return array[tuple(slice(None, None, -1 if flip else None) for flip in self.flips)]
