"""Which part of a scan is labelled, and which the model looks at for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from spad.data.frames import WorkingFrame
from spad.errors import SpadError
from spad.inference.body import Slices
from spad.inference.enlarge import Line, line
from spad.volumes.axes import canonical_order
from spad.volumes.volume import Volume

Box = Sequence[tuple[int, int]]
CONTEXT = 0.125
"""Of a window's side: what the model sees at least around a box."""


@dataclass(frozen=True)
class Region:
    """A part of a scan.

    Attributes:
        cells: voxels of the working grid that the model looks at.
        lines: from there to the voxels of the full grid that get labels.
    """

    cells: Slices
    lines: tuple[Line, Line, Line]


def region_of(
    frame: WorkingFrame, body: Slices, box: Slices | None, side: Sequence[int]
) -> Region | None:
    """Find the part of the working grid to look at.

    Args:
        frame: the working grid.
        body: where the body is on it.
        box: the part to label, on the full grid; None for all.
        side: of a window.

    Returns:
        The body, or for a box as much of the body around it as one window holds, or a margin; None
        where the box holds nothing of the body.
    """
    deep, high, wide = (
        line(coarse, fine, known)
        for coarse, fine, known in zip(frame.size, frame.full_size, body, strict=True)
    )
    if box is None:
        return Region(body, (deep, high, wide))
    z, y, x = box
    lines = deep.within(z.start, z.stop), high.within(y.start, y.stop), wide.within(x.start, x.stop)
    if not all(map(len, lines)):
        return None
    depth, height, width = (
        _with_context(one.coarse, known, window)
        for one, known, window in zip(lines, body, side, strict=True)
    )
    return Region((depth, height, width), lines)


def canonical_box(box: Box, scan: Volume) -> Slices:
    """Bring a box to the axes in which models see a scan.

    Args:
        box: (start, stop) along each of the three spatial axes of `scan.array`.
        scan: the scan.

    Raises:
        SpadError: the box is empty or reaches beyond the scan.
    """
    shape = scan.spatial_shape
    fits = len(box) == 3 and all(
        len(pair) == 2 and 0 <= pair[0] < pair[1] <= n for pair, n in zip(box, shape, strict=True)
    )
    if not fits:
        raise SpadError(
            f"The box {[tuple(pair) for pair in box]} does not lie in the scan, which has "
            f"{' x '.join(map(str, shape))} voxels; expected for each axis a first voxel and one "
            "behind the last, from 0 up to that number."
        )
    order, flips = canonical_order(scan.affine, depth_first=True)
    z, y, x = (
        slice(shape[axis] - box[axis][1], shape[axis] - box[axis][0])
        if flip
        else slice(box[axis][0], box[axis][1])
        for axis, flip in zip(order, flips, strict=True)
    )
    return z, y, x


def _with_context(needed: slice, known: slice, side: int) -> slice:
    """Widen a run of voxels to a window's side or by a margin, but not beyond what is known."""
    length = needed.stop - needed.start
    wanted = max(side, length + 2 * round(CONTEXT * side))
    wanted = min(wanted, known.stop - known.start)
    start = needed.start - (wanted - length) // 2
    start = min(max(start, known.start), known.stop - wanted)
    return slice(start, start + wanted)
