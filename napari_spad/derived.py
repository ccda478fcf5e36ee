"""Volumes of layers that are derived from a scan: other leading axes, cropped, projected."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from uuid import uuid4

import numpy as np

from napari_spad.grids import Fit
from spad.volumes.axes import canonical_order, from_canonical
from spad.volumes.volume import Volume

_PLANES = ("axial", "coronal", "sagittal")


def lay_on(fit: Fit, array: np.ndarray, lead: str, index: int | None = None) -> Volume:
    """Lay a layer's voxels on the grid that it lies on, as a volume that can be written.

    A crop by whole voxels lies where its voxels lie in the scan. A flat layer becomes one slice:
    at its own place if it is slice `index`; else (a projection) one that is as thick as the scan
    along the axis that it lacks, with its centre in the scan's.

    Args:
        fit: how the layer lies on the grid.
        array: leading axes, then the spatial ones along S-I, A-P and R-L; a flat layer has two.
        lead: a letter for each leading axis: t for times, c for channels.
        index: the slice that a flat layer is, along the axis that it lacks.

    Returns:
        The volume, with a sentence in `notes` if the layer is not all of the grid.
    """
    grid = fit.grid.volume
    start, thick = list(fit.start), [1, 1, 1]
    shape = list(fit.shape)
    notes: tuple[str, ...] = ()
    if fit.flat is not None:
        array = np.expand_dims(array, len(lead) + fit.flat)
        shape[fit.flat] = 1
        if index is None:
            thick[fit.flat] = fit.shape[fit.flat]
        else:
            start[fit.flat] = index
        notes = (_flat_note(fit, index),)
    elif not fit.is_whole:
        notes = (_crop_note(fit),)
    counts = array.shape[: len(lead)]
    target = grid
    if notes:
        target = _part(grid, start, shape, thick)
    if lead and (lead, counts) != (grid.axes[:-3], grid.array.shape[:-3]):
        target = _with_lead(target, lead, counts)
    volume = target.with_array(from_canonical(array, target, depth_first=False))
    return replace(volume, notes=notes) if notes else volume


def leading_letters(count: int, labels: Sequence[str], sizes: Sequence[int], grid: Volume) -> str:
    """Say what the leading axes of a layer are: "t" for times, "c" for channels.

    Args:
        count: how many there are.
        labels: the layer's axis labels, "time" or "channel" where napari kept them.
        sizes: the lengths of the leading axes.
        grid: the grid's volume; an axis of the length of one of its own is that one.

    Returns:
        A letter for each: what the labels say, else the grid's own, else times.
    """
    known = {"time": "t", "channel": "c"}
    letters = "".join(known.get(str(label), "") for label in labels[:count])
    if len(letters) == count:
        return letters
    own = dict(zip(grid.axes[:-3], grid.array.shape[:-3], strict=True))
    if tuple(own.values()) == tuple(sizes):
        return grid.axes[:-3]
    if count == 1:
        return next((letter for letter, size in own.items() if size == sizes[0]), "t")
    return "tc" if count == 2 else "t" * count


def _part(grid: Volume, start: list[int], shape: list[int], thick: list[int]) -> Volume:
    """Give a grid that is a part of another: from a voxel on, so many, each of so many voxels.

    Args:
        grid: the whole grid.
        start: first voxel along S-I, A-P, R-L.
        shape: voxels of the part along them.
        thick: how many voxels of the grid one of the part covers.
    """
    order, flips = canonical_order(grid.affine, depth_first=False)
    step, size = np.eye(4), [0, 0, 0]
    for axis, (old, flip) in enumerate(zip(order, flips, strict=True)):
        covered = shape[axis] * thick[axis]
        whole = grid.spatial_shape[old]
        first = whole - start[axis] - covered if flip else start[axis]
        step[old, old] = thick[axis]
        step[old, 3] = first + (thick[axis] - 1) / 2
        size[old] = shape[axis]
    affine = grid.affine @ step
    spatial = grid.source.permutation[-3:]
    of_file, shape_of_file = np.empty((4, 4)), [0, 0, 0]
    of_file[:, 3] = affine[:, 3]
    for axis, file_axis in enumerate(spatial):
        of_file[:, file_axis] = affine[:, axis]
        shape_of_file[file_axis] = size[axis]
    lead = grid.array.shape[:-3]
    source = replace(
        grid.source,
        format="none",
        shape=(*shape_of_file, *lead),
        affine=of_file,
        header=None,
        uuid=uuid4().hex,
    )
    array = np.broadcast_to(np.zeros((), grid.array.dtype), (*lead, *size))
    return replace(grid, array=array, affine=affine, source=source)


def _with_lead(grid: Volume, lead: str, counts: Sequence[int]) -> Volume:
    """Give a grid with other times or channels in front."""
    spatial = [0, 0, 0]
    for axis, file_axis in enumerate(grid.source.permutation[-3:]):
        spatial[file_axis] = grid.spatial_shape[axis]
    source = replace(
        grid.source,
        shape=(*spatial, *counts),
        axes="ijk" + lead,
        permutation=(*range(3, 3 + len(lead)), *grid.source.permutation[-3:]),
        flips=(False,) * (len(lead) + 3),
    )
    array = np.broadcast_to(np.zeros((), grid.array.dtype), (*counts, *grid.spatial_shape))
    return replace(grid, array=array, axes=lead + "zyx", source=source)


def _flat_note(fit: Fit, index: int | None) -> str:
    assert fit.flat is not None
    plane, count = _PLANES[fit.flat], fit.shape[fit.flat]
    if index is not None:
        return f"It is {plane} slice {index + 1} of {count} of {fit.grid.name!r}, and lies there."
    step = float(fit.grid.placement.scale[fit.flat])
    return (
        f"It is a projection of {fit.grid.name!r}: one {plane} slice, {count * step:.4g} mm thick "
        f"as the {count} slices that it is of."
    )


def _crop_note(fit: Fit) -> str:
    first = ", ".join(str(n) for n in fit.start)
    return (
        f"It is a part of {fit.grid.name!r} that begins at its voxel ({first}) along S-I, A-P and "
        "R-L, and lies there."
    )
