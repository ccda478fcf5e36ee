"""Which axis of a scan is depth, and the sentence that says why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import axis_assignment

RATIO = 1.2
_NAMES = ("i", "j", "k")


def depth_axis(
    shape: Sequence[int],
    affine: np.ndarray,
    stated: int | None = None,
    slice_axis: int | None = None,
) -> tuple[int, str]:
    """Choose the depth axis of a grid.

    In this order: what the data set or the person states; the only axis of one voxel; the axis
    whose spacing is at least 1.2 times the next; the header's slice axis; superior-inferior.

    Args:
        shape: voxels along the three spatial axes, in file order.
        affine: (4, 4), file index to RAS+ mm.
        stated: the axis (0, 1 or 2 in file order) that somebody states, if any.
        slice_axis: the header's slice axis, if it names one.

    Returns:
        The axis (0, 1 or 2 in file order) and one sentence with the reason.

    Raises:
        SpadError: the stated axis is not 0, 1 or 2.
    """
    if stated is not None:
        if isinstance(stated, bool) or stated not in (0, 1, 2):
            raise SpadError(
                f"Depth axis {stated!r} was asked for, but a scan has the axes 0, 1 and 2 "
                "(i, j, k of the file); state one of these."
            )
        return int(stated), f"Axis {_NAMES[stated]}: stated."
    single = [axis for axis in range(3) if shape[axis] == 1]
    if len(single) == 1:
        return single[0], f"Axis {_NAMES[single[0]]}: the scan is a single slice."
    spacing = np.linalg.norm(np.asarray(affine, float)[:3, :3], axis=0)
    order = np.argsort(spacing)
    widest, following = int(order[2]), int(order[1])
    if spacing[widest] >= RATIO * spacing[following] * (1 - 1e-6):
        return widest, (
            f"Axis {_NAMES[widest]}: its spacing of {spacing[widest]:.4g} mm is at least {RATIO} "
            f"times the next ({spacing[following]:.4g} mm)."
        )
    if slice_axis is not None:
        return slice_axis, f"Axis {_NAMES[slice_axis]}: the header names it as the slice axis."
    axis = int(np.flatnonzero(axis_assignment(affine)[0] == 2)[0])
    return axis, f"Axis {_NAMES[axis]}: it runs superior-inferior (spacings are alike)."
