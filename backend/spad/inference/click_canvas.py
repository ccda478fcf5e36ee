"""Where an object is drawn: on patches, of which its voxels in the scan are made.

All positions here are voxels of the scan's canonical view, depth first.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage

from spad.data.grid_lines import at_lines
from spad.data.patches import Patch
from spad.inference.click_input import ClickScan, Slices, between
from spad.inference.features import Features
from spad.prompts.part import Part, bounds

MARGIN = 3
"""Voxels at a patch's edge in which an object that reaches beyond it stays as it was."""
NEAR = 2
"""Voxels around a click in which a change is about it."""


SURE = 0.7
"""Probability from which a voxel joins an object that is corrected; it leaves at one minus that."""
SURER = 0.005
"""By how much that rises with each mm from what was clicked ..."""
SUREST = 0.98
"""... and up to what."""


class Canvas:
    """An object on one patch, or on finer ones that overlap and a coarse one for the rest.

    Args:
        shape: voxels of the scan.
        patch: the grid.
        chance: (D, H, W) of the object.
        parts: finer patches and the object's chance on them.

    Attributes:
        box: the object's first voxel and the one behind its last in the scan; None without one.
    """

    def __init__(
        self,
        shape: np.ndarray,
        patch: Patch,
        chance: torch.Tensor,
        parts: Sequence[tuple[Patch, torch.Tensor]] = (),
    ) -> None:
        self.shape, self.patch, self.chance, self.parts = shape, patch, chance, list(parts)
        self.box = box_in_scan(chance > 0.5, patch, shape)

    def touches(self) -> bool:
        """Whether the object reaches an edge beyond which the scan goes on."""
        return at_edge(self.chance > 0.5, open_ends(self.patch, self.shape))

    def on(self, patch: Patch) -> torch.Tensor:
        """Resample the object to another patch: (D, H, W) booleans."""
        centre = self.patch.to_patch(patch.centre[None])[0]
        matrix = np.linalg.inv(self.patch.matrix) @ patch.matrix
        inner = Patch(centre, patch.size, matrix, patch.spacing, patch.da)
        padded = torch.nn.functional.pad(self.chance, (1,) * 6)
        moved = Patch(inner.centre + 1, inner.size, matrix, patch.spacing, patch.da)
        return moved.take(padded, padded.shape) > 0.5

    def with_parts(self, parts: list[tuple[Patch, torch.Tensor]]) -> Canvas:
        """The same with finer patches that overlap."""
        return Canvas(self.shape, self.patch, self.chance, parts)

    def on_scan(self) -> tuple[Slices, np.ndarray]:
        """Give the region that is decided and the object in it."""
        if self.parts:
            return self._joined()
        region = covered(self.patch, self.shape)
        return region, (on_region(self.patch, self.chance, region) > 0.5).numpy()

    def _joined(self) -> tuple[Slices, np.ndarray]:
        """Blend the finer patches where they are, the coarse one elsewhere."""
        whole = covered(self.patch, self.shape)
        boxes = [
            box for p, c in self.parts if (box := box_in_scan(c > 0.5, p, self.shape)) is not None
        ]
        boxes.append(self.box)  # type: ignore[arg-type]
        low, high = np.min([b[0] for b in boxes], 0), np.max([b[1] for b in boxes], 0)
        region = tuple(
            slice(max(int(a), w.start), min(int(b), w.stop))
            for a, b, w in zip(low, high, whole, strict=True)
        )
        region = (region[0], region[1], region[2])
        total = on_region(self.patch, self.chance, region) * 1e-3
        weight = torch.full_like(total, 1e-3)
        for patch, chance in self.parts:
            cells = covered(patch, self.shape)
            both = tuple(
                slice(max(a.start, b.start), min(a.stop, b.stop))
                for a, b in zip(cells, region, strict=True)
            )
            if any(one.stop <= one.start for one in both):
                continue
            both = (both[0], both[1], both[2])
            axes = [_tent(n) for n in patch.size]
            tent = axes[0][:, None, None] * axes[1][:, None] * axes[2]
            share = on_region(patch, tent, both).clamp_(min=1e-4)
            local = tuple(
                slice(b.start - r.start, b.stop - r.start)
                for b, r in zip(both, region, strict=True)
            )
            total[local] += on_region(patch, chance, both) * share
            weight[local] += share
        mask = (total / weight > 0.5).numpy()
        # the coarse answer's region is decided as a whole
        if whole == region:
            return region, mask
        full = np.zeros([one.stop - one.start for one in whole], bool)
        full[
            tuple(
                slice(r.start - w.start, r.stop - w.start)
                for r, w in zip(region, whole, strict=True)
            )
        ] = mask
        return whole, full


def _tent(count: int) -> torch.Tensor:
    position = torch.arange(count, dtype=torch.float32)
    return torch.minimum(position + 1, count - position) / ((count + 1) / 2)


def open_ends(patch: Patch, shape: np.ndarray) -> list[tuple[bool, bool]]:
    """Tell for each end of each axis whether the scan goes on beyond a patch."""
    corners = patch.to_scan(_ends(patch))
    return [
        (bool(a > 0), bool(b < n - 1))
        for a, b, n in zip(corners[0], corners[1], shape, strict=True)
    ]


def at_edge(mask: torch.Tensor, is_open: Sequence[tuple[bool, bool]]) -> bool:
    """Whether a mask has a voxel at an open end."""
    for axis, (low, high) in enumerate(is_open):
        if low and bool(mask.select(axis, 0).any()):
            return True
        if high and bool(mask.select(axis, -1).any()):
            return True
    return False


def decided(patch: Patch, shape: np.ndarray) -> Slices:
    """The part of the scan that a patch decides about: not its edges where the scan goes on."""
    ends = _ends(patch)
    for axis, (low, high) in enumerate(open_ends(patch, shape)):
        if patch.size[axis] > 4 * MARGIN:
            ends[0, axis] += MARGIN * low
            ends[1, axis] -= MARGIN * high
    return _cells(patch, ends, shape)


def covered(patch: Patch, shape: np.ndarray) -> Slices:
    """The part of the scan that a patch covers."""
    return _cells(patch, _ends(patch), shape)


def _ends(patch: Patch) -> np.ndarray:
    """The outer corners of a patch."""
    return np.array([[-0.5] * 3, np.array(patch.size) - 0.5])


def _cells(patch: Patch, corners: np.ndarray, shape: np.ndarray) -> Slices:
    """Give the voxels of the scan whose centres lie between two corners of a patch."""
    ends = patch.to_scan(corners)
    low = np.clip(np.ceil(ends[0] - 1e-6), 0, shape - 1).astype(int)
    high = np.clip(np.floor(ends[1] + 1e-6) + 1, low + 1, shape).astype(int)
    z, y, x = (slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
    return z, y, x


def box_in_scan(mask: torch.Tensor, patch: Patch, shape: np.ndarray) -> np.ndarray | None:
    """Give the box of a patch's mask in voxels of the scan: first and one behind the last."""
    spans = []
    for axis in range(3):
        others = [a for a in range(3) if a != axis]
        line = torch.nonzero(mask.any(others[1]).any(others[0])).flatten()
        if not len(line):
            return None
        spans.append((float(line[0]) - 0.5, float(line[-1]) + 0.5))
    part = _cells(patch, np.array(spans).T, shape)
    return np.array([[one.start for one in part], [one.stop for one in part]])


def on_region(patch: Patch, chance: torch.Tensor, region: Slices) -> torch.Tensor:
    """Interpolate a straight patch's values at the voxels of a part of the scan, axis by axis."""
    lines = [
        (np.arange(part.start, part.stop) - patch.centre[axis]) / patch.matrix[axis, axis]
        + (patch.size[axis] - 1) / 2
        for axis, part in enumerate(region)
    ]
    return at_lines(chance, lines)


def sureness(region: Slices, clicked: np.ndarray | None, spacing: np.ndarray) -> torch.Tensor:
    """Give the probability that the decoder must have for a voxel to change.

    Args:
        region: a part of the scan.
        clicked: (n, 3) voxels in the box of which one clicked; None where all may change alike.
        spacing: in mm.

    Returns:
        (D, H, W) of the region, or one number.
    """
    if clicked is None:
        return torch.tensor(SURE)
    squares = []
    for axis, part in enumerate(region):
        place = torch.arange(part.start, part.stop, dtype=torch.float32)
        low, high = float(clicked[:, axis].min()), float(clicked[:, axis].max())
        away = torch.maximum(low - place, place - high).clamp_(min=0)
        squares.append((away * float(spacing[axis])) ** 2)
    mm = (squares[0][:, None, None] + squares[1][:, None] + squares[2]).sqrt_()
    return mm.mul_(SURER).add_(SURE).clamp_(max=SUREST)


def about(at: np.ndarray, positive: bool, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """Keep of a change what a point or scribble is about.

    A positive one adds, a negative one takes away, and only the pieces that it meets: a decoder
    that draws the whole object again would shift all of its edge a little with each click.

    Args:
        at: (n, 3) voxels that were clicked.
        positive: whether they belong to the object.
        before: (D, H, W) booleans, the object as it was.
        after: the same, as the decoder draws it.

    Returns:
        The object as it becomes, of the same shape.
    """
    changed = after & ~before if positive else before & ~after
    tight = bounds(changed)
    made = before.copy()
    if tight is None:
        return made
    box = tuple(slice(max(0, one.start - NEAR), one.stop + NEAR) for one in tight)
    part = _met(at - [one.start for one in box], changed[box])
    made[box] = made[box] | part if positive else _without_crumbs(before[box], part)
    return made


def _without_crumbs(before: np.ndarray, part: np.ndarray) -> np.ndarray:
    """Take a part away, and what that cuts off on all sides and is smaller than the part."""
    after = before & ~part
    pieces, count = ndimage.label(after)
    old, _ = ndimage.label(before)
    sizes, old_sizes = np.bincount(pieces.ravel()), np.bincount(old.ravel())
    sides = [np.take(pieces, end, axis) for axis in range(3) for end in (0, -1)]
    reaching = np.unique(np.concatenate([side.ravel() for side in sides]))
    for number in np.setdiff1d(np.arange(1, count + 1), reaching):
        crumb = pieces == number
        was_apart = old_sizes[old[crumb][0]] == sizes[number]
        if not was_apart and sizes[number] < part.sum():
            after[crumb] = False
    return after


def _met(at: np.ndarray, changed: np.ndarray) -> np.ndarray:
    """Give the pieces of a change that clicks meet."""
    seeds = np.zeros_like(changed)
    inside = at[((at >= 0) & (at < np.array(changed.shape))).all(1)].astype(int)
    seeds[tuple(inside.T)] = True
    seeds = ndimage.binary_dilation(seeds, np.ones((3, 3, 3)), iterations=NEAR)
    # thin layers along the edge would join all places
    pieces, _ = ndimage.label(ndimage.binary_opening(changed))
    met = np.unique(pieces[seeds])
    part = np.isin(pieces, met[met > 0])
    if part.any():
        return ndimage.binary_dilation(part, iterations=NEAR, mask=changed)
    return ndimage.binary_dilation(seeds & changed, iterations=3 * NEAR, mask=changed)


def organ_part(
    features: Features, name: str, scan: ClickScan, at: np.ndarray | None = None
) -> Part | None:
    """Give an organ of the automatic result on the scan's grid; None where there is none.

    Args:
        features: what a segmenter knows of the scan.
        name: of the organ.
        scan: the scan.
        at: a canonical voxel: only the piece that holds it; None for all of the organ.
    """
    number = {features.names[i]: n for n, i in enumerate(features.ids) if i}[name]
    likely = features.best == number
    shape, size = np.array(scan.shape), np.array(likely.shape)
    ratio = shape / size
    if at is not None:
        pieces, _ = ndimage.label(likely)
        cell = np.clip(((at + 0.5) / ratio).astype(int), 0, size - 1)
        if not pieces[tuple(cell)]:
            return None
        likely = pieces == pieces[tuple(cell)]
    box = bounds(likely)
    if box is None:
        return None
    # one more voxel each way, so that the edge is interpolated
    first = np.maximum([one.start - 1 for one in box], 0)
    last = np.minimum([one.stop + 1 for one in box], size)
    part = between(first, last)
    rest = features.organs[(slice(None), *part)].float() / 255
    chance = rest[number].clone()
    rest[number] = 0
    margin = chance - rest.amax(0)
    near = ndimage.binary_dilation(likely[part], np.ones((3, 3, 3)))
    margin[torch.from_numpy(~near)] = -1
    spacing = np.array(scan.spacing) * ratio
    patch = Patch(
        ((first + last) / 2) * ratio - 0.5,
        (int(last[0] - first[0]), int(last[1] - first[1]), int(last[2] - first[2])),
        np.diag(ratio),
        (float(spacing[0]), float(spacing[1]), float(spacing[2])),
        0,
    )
    region = covered(patch, shape)
    mask = (on_region(patch, margin, region) > 0).numpy()
    return scan.array_part(region, mask).tight()
