"""How a tokenizer sees a scan, gray or in colours, and the way back onto the scan's own grid."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from spad.checkpoints.zoo import Entry
from spad.data.channels import one_phase
from spad.data.frames import working_frame
from spad.data.model_input import UnitVolume, contract_for, in_unit, unit_volume
from spad.errors import SpadError
from spad.models.resize import resize
from spad.volumes.axes import canonical_order, from_canonical, to_canonical
from spad.volumes.intensity import Intensity, Limits
from spad.volumes.volume import Volume

COLOURS = 3
SCREEN_AXES = ("S-I", "A-P", "R-L")
"""The axes of the screen: superior to inferior, anterior to posterior, right to left."""


def seen(
    volume: Volume, entry: Entry, phase: int = 0, limits: Limits | None = None
) -> tuple[Volume, UnitVolume]:
    """Bring a scan into the form that a tokenizer takes.

    Args:
        volume: the scan, gray or in colours.
        entry: the tokenizer.
        phase: which time of it.
        limits: as they were found for the scan before, to show it as then; None finds them.

    Returns:
        The scan at that time, and the same in [0, 1]; of a scan in colours `array` is (C, D, H, W).

    Raises:
        SpadError: the model is not for such a scan, or there is no such time.
    """
    if volume.rgb:
        return _in_colours(volume, entry, phase)
    scan = one_phase(volume, phase)
    unit = unit_volume(scan, entry.card, volume.modality)
    return scan, unit if limits is None else replace(unit, limits=limits)


def outline(
    volume: Volume, entry: Entry, limits: Limits, phase: int = 0
) -> tuple[Volume, UnitVolume]:
    """Do as `seen` without looking at a voxel: `array` has the right shape and no memory."""
    if volume.rgb:
        volume = replace(volume, array=_no_voxels(volume.array.shape, volume.array.dtype))
        return _in_colours(volume, entry, phase)
    scan = one_phase(volume, phase)
    frame = working_frame(scan, entry.card.working_spacing)
    contract = contract_for(entry.card, volume.modality)
    return scan, UnitVolume(_no_voxels(frame.size, np.dtype(np.float32)), frame, contract, limits)


def reconstruction_of(image: np.ndarray, scan: Volume, unit: UnitVolume) -> Volume:
    """Put an image of the working grid in [0, 1] on the scan's own grid, in its unit.

    Colours are rounded to whole numbers where the scan has such.
    """
    values = unit.contract.from_unit(image, unit.limits)
    if scan.rgb and scan.array.dtype.kind in "iu":
        values = np.rint(values).astype(scan.array.dtype)
        return scan.with_array(from_canonical(values, scan, depth_first=True))
    return _on_source(values, scan, unit)


def error_of(image: np.ndarray, scan: Volume, unit: UnitVolume) -> Volume:
    """Give the absolute difference to the clipped scan on its own grid, in its unit.

    Of colours it is the mean over them.
    """
    error = np.subtract(image, unit.array)
    np.abs(error, out=error)
    error *= np.float32(unit.limits[1] - unit.limits[0])
    return _on_source(error.mean(0) if scan.rgb else error, scan, unit)


def slice_error(error: Volume) -> dict[str, list[float]]:
    """Give the mean error of every slice through each axis of the screen.

    Args:
        error: of `error_of`.

    Returns:
        "S-I", "A-P" and "R-L" to one number per slice, in the order of the screen's sliders.
    """
    view, _ = to_canonical(error, depth_first=False)
    lines = {}
    for axis, name in enumerate(SCREEN_AXES):
        others = tuple(other for other in range(3) if other != axis)
        lines[name] = [float(value) for value in view.mean(axis=others, dtype=np.float64)]
    return lines


def depth_first_axis(scan: Volume, axis: int) -> int:
    """Tell which axis of the working grid an axis of the screen (0 S-I, 1 A-P, 2 R-L) is."""
    stored = canonical_order(scan.affine, depth_first=False)[0][axis]
    return list(canonical_order(scan.affine, depth_first=True)[0]).index(stored)


def _in_colours(volume: Volume, entry: Entry, phase: int) -> tuple[Volume, UnitVolume]:
    channels = entry.card.architecture.get("in_channels")
    if channels != COLOURS:
        raise SpadError(
            f"The scan is in colours, but the model '{entry.name}' takes {channels} channel; "
            "choose a tokenizer of three channels, or convert the scan to grey."
        )
    if volume.axes == "tczyx":
        volume = replace(volume, array=volume.array[phase], axes="czyx")
    scan = replace(volume, array=volume.array[:COLOURS])
    stored, _ = to_canonical(scan, depth_first=True)
    contract = _colour_contract(scan, entry)
    limits = contract.low, contract.high
    frame = working_frame(replace(scan, array=scan.array[0], axes="zyx", rgb=False), None)
    return scan, UnitVolume(
        contract.to_unit(in_unit(scan, stored), limits), frame, contract, limits
    )


def _colour_contract(scan: Volume, entry: Entry) -> Intensity:
    """Let the whole range of the stored colours be [0, 1], in the range that the model takes."""
    dtype = scan.array.dtype
    high = float(np.iinfo(dtype).max) if dtype.kind in "iu" else 1.0
    own = entry.card.intensity.get("*") or next(iter(entry.card.intensity.values()))
    return Intensity("window", 0.0, high, own.shift, own.scale)


def _no_voxels(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    return np.broadcast_to(np.zeros((), dtype), shape)


def _on_source(values: np.ndarray, scan: Volume, unit: UnitVolume) -> Volume:
    whole = torch.from_numpy(np.ascontiguousarray(values)).reshape(1, -1, *unit.frame.size)
    full = resize(whole, unit.frame.full_size).numpy()
    full = full.reshape(*values.shape[:-3], *unit.frame.full_size)
    return scan.with_array(from_canonical(full, scan, depth_first=True))
