"""The channels and times of a scan, and scans and labels brought onto one order of axes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from spad.errors import SpadError
from spad.volumes.axes import from_canonical, to_canonical
from spad.volumes.volume import Volume

SAME_MM = 1e-3
"""How far two affines may differ, entry by entry, and still be one grid."""


def one_phase(volume: Volume, phase: int = 0) -> Volume:
    """Take one time (or channel) of a 4D scan; a 3D scan as it is.

    Raises:
        SpadError: there is no such time, or the scan is in colour.
    """
    if volume.rgb or volume.axes == "tczyx":
        raise SpadError(
            f"The scan has {volume.array.shape[-4]} colours or channels for each voxel, but models "
            "look at one value; convert it to grey first."
        )
    if volume.array.ndim == 3:
        return volume
    _check_phase(phase, volume.array.shape[0])
    return _part(volume, volume.array[phase])


def channels_of(volume: Volume, phase: int = 0, *, times: bool = False) -> list[Volume]:
    """Take a scan's channels apart.

    Args:
        volume: a scan with or without a channel axis.
        phase: which time of a 4D scan.
        times: take a time axis for the channel axis, if there is no other.

    Returns:
        A 3D scan for each channel; one where there is no channel axis.

    Raises:
        SpadError: there is no such time, or the scan is in colour.
    """
    if volume.rgb or volume.axes not in ("czyx", "tczyx", "tzyx"):
        return [one_phase(volume, phase)]
    if volume.axes == "tzyx" and not times:
        return [one_phase(volume, phase)]
    array = volume.array
    if volume.axes == "tczyx":
        _check_phase(phase, len(array))
        array = array[phase]
    return [_part(volume, channel) for channel in array]


def on_grid_of(volume: Volume, scan: Volume) -> Volume | None:
    """Bring a 3D volume that lies on a scan's grid into the scan's own order of axes.

    Args:
        volume: 3D; its axes may have another order or run the other way (another depth axis, a
            file in LPS beside one in RAS).
        scan: the scan.

    Returns:
        The same voxels in the axes of `scan.array`, with the scan's affine and source grid; None
        if they lie on another grid.
    """
    view, affine = to_canonical(volume, depth_first=False)
    theirs, wanted = to_canonical(scan, depth_first=False)
    if view.shape[-3:] != theirs.shape[-3:] or not np.allclose(affine, wanted, atol=SAME_MM):
        return None
    array = from_canonical(view, scan, depth_first=False)
    return replace(volume, array=array, affine=scan.affine, source=scan.source)


def on_one_grid(channels: Sequence[Volume]) -> list[Volume]:
    """Bring the channels of a scan onto the grid of the first.

    Raises:
        SpadError: one lies on another grid.
    """
    first = channels[0]
    moved = []
    for number, channel in enumerate(channels, 1):
        found = channel if channel is first else on_grid_of(channel, first)
        if found is None:
            raise SpadError(
                f"Channel {number} ({channel.source.path or 'of the open layers'}) has "
                f"{_grid(channel)} voxels, channel 1 ({first.source.path or 'of the open layers'}) "
                f"{_grid(first)}, or they lie elsewhere; expected all channels of a scan on one "
                "grid; resample them onto the first."
            )
        moved.append(found)
    return moved


def _part(volume: Volume, array: np.ndarray) -> Volume:
    one = volume.with_array(
        array,
        label_names=volume.label_names,
        slope=volume.slope,
        intercept=volume.intercept,
    )
    return replace(one, unit=volume.unit)


def _check_phase(phase: int, phases: int) -> None:
    if not 0 <= phase < phases:
        raise SpadError(
            f"Time {phase} was asked for, but the scan has {phases}; give a number from 0 to "
            f"{phases - 1}."
        )


def _grid(volume: Volume) -> str:
    shape = " x ".join(str(n) for n in volume.spatial_shape)
    return f"{shape} of " + " x ".join(f"{s:.4g}" for s in volume.spacing) + " mm"
