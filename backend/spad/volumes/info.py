"""What a file is: the figures that `spad info` and the Scan dock show."""

from __future__ import annotations

import os
from typing import Any

from spad.volumes.axes import degrees_off_axis, orientation_letters
from spad.volumes.files import read
from spad.volumes.statistics import stored_statistics
from spad.volumes.volume import OBLIQUE_DEGREES, Volume


def describe(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Describe a scan in the axes of its file.

    Args:
        path: any readable scan.

    Returns:
        Plain JSON values; keys as in `describe_volume`.

    Raises:
        SpadError: the file cannot be used.
    """
    return describe_volume(read(path))


def describe_volume(volume: Volume) -> dict[str, Any]:
    """Describe a volume in the axes of its file (i, j, k[, t]).

    Returns:
        `path, format, axes, shape, dtype, spacing` (mm), `orientation` (three letters towards
        which i, j and k increase), `affine` (RAS+ mm), `depth_axis` (an index into i, j, k),
        `depth_reason, oblique, da, modality, modality_source, labels` (id to name or None),
        `intensity` (min, max, p0_5, p99_5 of the finite voxels, percentiles of those above the
        minimum, in the scan's unit), `voxels_not_finite, notes`.
    """
    source = volume.source
    spatial = [axis for axis in source.permutation if axis < 3]
    full = len(source.permutation)
    shape = [*source.shape, 1, 1, 1][:3] if len(source.shape) < 4 else [*source.shape][:4]
    found = stored_statistics(volume, (0.5, 99.5))
    names = volume.label_names
    return {
        "path": source.path,
        "format": source.format,
        "axes": "ijkt" if len(shape) == 4 or full == 4 else "ijk",
        "shape": [int(n) for n in shape],
        "dtype": source.dtype.newbyteorder("=").name,
        "spacing": [float(volume.spacing[spatial.index(axis)]) for axis in range(3)],
        "orientation": orientation_letters(source.affine),
        "affine": [[float(entry) for entry in row] for row in source.affine],
        "depth_axis": int(spatial[0]),
        "depth_reason": volume.depth_reason,
        "oblique": bool(degrees_off_axis(source.affine) > OBLIQUE_DEGREES),
        "da": int(volume.da),
        "modality": volume.modality,
        "modality_source": volume.modality_source,
        "labels": None if names is None else {str(key): names[key] for key in sorted(names)},
        "intensity": {
            "min": found.minimum,
            "max": found.maximum,
            "p0_5": found.percentiles[0],
            "p99_5": found.percentiles[1],
        },
        "voxels_not_finite": found.not_finite,
        "notes": list(volume.notes),
    }
