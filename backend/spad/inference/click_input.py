"""What the click decoder is told: a scan in its form, prompts on that, an object as it was.

All positions here are voxels of the scan's canonical view, depth first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from spad.checkpoints.card import Card
from spad.data.model_input import contract_for, in_unit, one_phase, refuse_labels, scan_limits
from spad.prompts.part import Part
from spad.prompts.prompt import Prompt
from spad.volumes.axes import canonical_order, to_canonical
from spad.volumes.volume import Volume

MOST_POINTS = 200
"""Of a scribble: more are thinned out evenly."""

Slices = tuple[slice, slice, slice]


@dataclass(frozen=True, eq=False)
class ClickScan:
    """A scan as the click decoder sees it.

    Attributes:
        unit: (D, H, W) uint8, [0, 1] in 1/255 by the intensity contract, canonical, depth first.
        spacing: in mm.
        order: canonical axis n is axis `order[n]` of `Volume.array` ...
        flips: ... reversed if `flips[n]`.
        modality: of the scan.
    """

    unit: torch.Tensor
    spacing: tuple[float, float, float]
    order: tuple[int, ...]
    flips: tuple[bool, ...]
    modality: str | None

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along depth, height and width."""
        depth, height, width = self.unit.shape
        return depth, height, width

    def canonical(self, voxels: np.ndarray) -> np.ndarray:
        """Bring (n, 3) indices of `Volume.array` to the canonical view."""
        turned = np.asarray(voxels)[:, list(self.order)].copy()
        for axis, flip in enumerate(self.flips):
            if flip:
                turned[:, axis] = self.shape[axis] - 1 - turned[:, axis]
        return turned

    def array_voxel(self, voxel: np.ndarray) -> tuple[int, int, int]:
        """Bring one voxel of the canonical view to an index of `Volume.array`."""
        made = [0, 0, 0]
        for axis, (place, flip) in enumerate(zip(voxel, self.flips, strict=True)):
            made[self.order[axis]] = int(self.shape[axis] - 1 - place if flip else place)
        return made[0], made[1], made[2]

    def canonical_part(self, part: Part) -> tuple[np.ndarray, np.ndarray]:
        """Bring a part to the canonical view: its first voxel and its mask."""
        corners = self.canonical(np.array([part.start, np.array(part.stop) - 1]))
        return corners.min(0), _flipped(part.mask.transpose(self.order), self.flips)

    def array_part(self, region: Slices, mask: np.ndarray) -> Part:
        """Bring a canonical region and its mask to the axes of `Volume.array`."""
        start = [0, 0, 0]
        for axis, (part, flip) in enumerate(zip(region, self.flips, strict=True)):
            start[self.order[axis]] = self.shape[axis] - part.stop if flip else part.start
        back = np.argsort(self.order)
        return Part((start[0], start[1], start[2]), _flipped(mask, self.flips).transpose(back))


def _flipped(mask: np.ndarray, flips: Sequence[bool]) -> np.ndarray:
    return mask[tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)]


def click_scan(
    volume: Volume, card: Card, modality: str | None = None, phase: int = 0
) -> ClickScan:
    """Bring a scan into the form that clicks need: one byte for each voxel.

    Raises:
        SpadError: labels were given, the model has no contract for the modality, the phase does
            not exist or no voxel is finite.
    """
    refuse_labels(volume)
    modality = modality or volume.modality
    contract = contract_for(card, modality)
    scan = one_phase(volume, phase)
    limits = scan_limits(scan, contract)
    view, affine = to_canonical(scan, depth_first=True)
    unit = np.empty(view.shape, np.uint8)
    for index, plane in enumerate(view):
        values = contract.to_unit(in_unit(scan, plane), limits)
        unit[index] = np.clip(np.rint(values * 255), 0, 255)
    z, y, x = (float(s) for s in np.linalg.norm(affine[:3, :3], axis=0))
    order, flips = canonical_order(scan.affine, depth_first=True)
    return ClickScan(torch.from_numpy(unit), (z, y, x), tuple(order), tuple(flips), modality)


@dataclass(eq=False)
class Told:
    """The prompts of an object in canonical voxels.

    Attributes:
        positive, negative: (n, 3) points and thinned scribbles.
        boxes: first and last voxel, (2, 3) each.
        lassos: (n, 3) voxels inside each.
        fixed: (n, 3) voxels and whether they belong to the object: exactly what was clicked,
            painted or erased.
        latest: (n, 3) voxels of the last prompt.
        latest_is_region: whether that is a box or a lasso.
    """

    positive: np.ndarray
    negative: np.ndarray
    boxes: list[np.ndarray]
    lassos: list[np.ndarray]
    fixed: list[tuple[np.ndarray, bool]] = field(default_factory=list)
    latest: np.ndarray = field(default_factory=lambda: np.zeros((0, 3)))
    latest_is_region: bool = False

    @property
    def seeds(self) -> np.ndarray:
        """(n, 3) voxels that the decoder takes for the object, since it goes by what is like them.

        These are the middle of each box and lasso, and the positive ones.
        """
        middles = [one[_nearest(one, one.mean(0))] for one in self.lassos]
        middles += [np.rint(box.mean(0)) for box in self.boxes]
        return np.concatenate([np.array(middles).reshape(-1, 3), self.positive])

    @property
    def regions(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        """The boxes and lassos that say more than the clicks: none once one has clicked inside."""
        if len(self.positive) and not self.latest_is_region:
            return [], []
        return self.boxes, self.lassos

    def inside(self, region: Slices) -> np.ndarray | None:
        """Tell what of a part of the scan lies in the boxes and lassos, which hold the object.

        One on a slice says nothing of other slices, unless a box in 3D does.

        Returns:
            (D, H, W) booleans of the part; None where something else was clicked or drawn, too.
        """
        if len(self.positive) or not (self.boxes or self.lassos):
            return None
        low = np.array([part.start for part in region])
        size = np.array([part.stop for part in region]) - low
        solid = [box for box in self.boxes if (box[0] < box[1]).all()]
        flat = [box for box in self.boxes if not (box[0] < box[1]).all()]
        made = np.full(size, not solid)
        for voxels in (*flat, *self.lassos):
            axis = int(np.ptp(voxels, axis=0).argmin())
            at = int(voxels[0, axis] - low[axis])
            if 0 <= at < size[axis]:
                np.moveaxis(made, axis, 0)[at] = False
        for box in self.boxes:
            first, last = np.clip([box[0] - low, box[1] + 1 - low], 0, size)
            made[between(first, last)] = True
        for lasso in self.lassos:
            local = lasso - low
            local = local[((local >= 0) & (local < size)).all(1)]
            made[tuple(local.T.astype(int))] = True
        return made


def _nearest(voxels: np.ndarray, place: np.ndarray) -> int:
    return int(((voxels - place) ** 2).sum(1).argmin())


def told(prompts: Sequence[Prompt], scan: ClickScan) -> Told:
    """Bring prompts to canonical voxels."""
    points: dict[bool, list[np.ndarray]] = {True: [], False: []}
    found = Told(np.zeros((0, 3)), np.zeros((0, 3)), [], [])
    for prompt in prompts:
        voxels = scan.canonical(np.array(prompt.voxels))
        found.latest, found.latest_is_region = voxels, prompt.kind in ("box", "lasso")
        if prompt.kind == "box":
            found.boxes.append(np.array([voxels.min(0), voxels.max(0)]))
        elif prompt.kind == "lasso":
            found.lassos.append(_inside_outline(voxels, scan.shape))
            found.latest = found.lassos[-1]
        else:
            thin = max(1, math.ceil(len(voxels) / MOST_POINTS))
            points[prompt.positive].append(voxels[::thin])
            found.fixed.append((voxels, prompt.positive))
    empty = np.zeros((0, 3))
    found.positive = np.concatenate([empty, *points[True]])
    found.negative = np.concatenate([empty, *points[False]])
    return found


def _inside_outline(corners: np.ndarray, shape: Sequence[int]) -> np.ndarray:
    """Fill an outline on a slice: the voxels whose centres lie in it, or on its corners."""
    from matplotlib.path import Path as Outline

    axis = int(np.flatnonzero(np.ptp(corners, axis=0) == 0)[0])
    others = [a for a in range(3) if a != axis]
    flat = corners[:, others]
    low, high = flat.min(0), flat.max(0)
    rows, columns = np.mgrid[low[0] : high[0] + 1, low[1] : high[1] + 1]
    cells = np.stack([rows.ravel(), columns.ravel()], 1)
    inside = cells[Outline(flat).contains_points(cells, radius=1e-6)]
    inside = np.unique(np.concatenate([inside, flat]), axis=0)
    made = np.full((len(inside), 3), corners[0, axis])
    made[:, others] = inside
    return made


class Before:
    """An object as it was, on the canonical grid; only its box is held."""

    def __init__(self, part: Part, scan: ClickScan) -> None:
        self._start, self._mask = scan.canonical_part(part)
        self.shape = scan.shape
        self.box = np.array([self._start, self._start + np.array(self._mask.shape)])

    def __getitem__(self, part: Slices) -> torch.Tensor:
        """Give the voxels of a part: booleans."""
        made = np.zeros([one.stop - one.start for one in part], bool)
        low = np.array([one.start for one in part])
        high = np.array([one.stop for one in part])
        first, last = np.maximum(low, self.box[0]), np.minimum(high, self.box[1])
        if (last > first).all():
            there = between(first - low, last - low)
            made[there] = self._mask[between(first - self._start, last - self._start)]
        return torch.from_numpy(made)

    def piece(self, voxel: np.ndarray) -> np.ndarray:
        """Give the box of the connected piece that is nearest to a voxel: as `box`."""
        pieces, count = ndimage.label(self._mask)
        if count < 2:
            return self.box
        voxels = np.argwhere(pieces)
        nearest = voxels[_nearest(voxels + self._start, voxel)]
        part = ndimage.find_objects(pieces)[pieces[tuple(nearest)] - 1]
        ends = np.array([[one.start for one in part], [one.stop for one in part]])
        return ends + self._start


def between(first: np.ndarray, last: np.ndarray) -> Slices:
    """Give the part of an array from a first voxel to the one before `last`."""
    z, y, x = (slice(int(a), int(b)) for a, b in zip(first, last, strict=True))
    return z, y, x
