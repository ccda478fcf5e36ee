"""What a file is: the figures that `spad info` and the Scan dock show."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from spad.volumes.axes import degrees_off_axis, orientation_letters, shear_degrees
from spad.volumes.files import catalog, read
from spad.volumes.statistics import EXACT_VOXELS, Statistics, stored_statistics
from spad.volumes.volume import OBLIQUE_DEGREES, Volume


def describe(
    path: str | os.PathLike[str],
    *,
    spacing: tuple[float, ...] | None = None,
    series: str | None = None,
) -> dict[str, Any]:
    """Describe a scan in the axes of its file, or list the series of a DICOM folder.

    Args:
        path: any readable scan.
        spacing: mm along i, j and k, for formats that state none.
        series: SeriesInstanceUID to describe where a folder holds several.

    Returns:
        Plain JSON values. Keys as in `describe_volume`; for a DICOM folder or DICOMDIR also
        `series`: one `{uid, description, modality, kind, slices, shape, spacing, problem}` each.
        Where there are several and none is chosen, `path`, `format` and `series` alone.

    Raises:
        SpadError: the file cannot be used.
    """
    found = []
    if series is None and (os.path.isdir(path) or Path(path).name.upper() == "DICOMDIR"):
        found = catalog(path)
    listed: dict[str, Any] = {}
    if found:
        listed["series"] = [
            {
                **{key: getattr(one, key) for key in ("uid", "description", "modality", "kind")},
                "slices": one.slices,
                "shape": list(one.shape),
                "spacing": [float(step) for step in one.spacing],
                "problem": one.problem,
            }
            for one in found
        ]
    if len(found) > 1:
        return {"path": str(path), "format": "dicom", **listed}
    return describe_volume(read(path, spacing=spacing, series=series)) | listed


def describe_volume(volume: Volume) -> dict[str, Any]:
    """Describe a volume in the axes of its file (i, j, k[, t][, c]).

    Returns:
        `path, name, format, axes, shape, dtype, spacing` (mm), `orientation` (three letters towards
        which i, j and k increase), `affine` (RAS+ mm), `depth_axis` (an index into i, j, k),
        `depth_reason, oblique, shear` (degrees between axes beyond 90), `da, modality,
        modality_source, unit, time_step, labels` (id to name or None),
        `intensity` (min, max, p0_5, p99_5 of the finite voxels, percentiles of those above the
        minimum, in the scan's unit), `voxels_not_finite, notes`.
    """
    source = volume.source
    spatial = [axis for axis in source.permutation if axis < 3]
    shape = (*source.shape, 1, 1)[: len(source.axes)]
    found = stored_statistics(volume, (0.5, 99.5))
    names = volume.label_names
    return {
        "path": source.path,
        "name": volume.name,
        "format": source.format,
        "axes": source.axes,
        "shape": [int(n) for n in shape],
        "dtype": source.dtype.newbyteorder("=").name,
        "spacing": [float(volume.spacing[spatial.index(axis)]) for axis in range(3)],
        "orientation": orientation_letters(source.affine),
        "affine": [[float(entry) for entry in row] for row in source.affine],
        "depth_axis": int(spatial[0]),
        "depth_reason": volume.depth_reason,
        "oblique": bool(degrees_off_axis(source.affine) > OBLIQUE_DEGREES),
        "shear": round(shear_degrees(source.affine), 3) + 0.0,
        "da": int(volume.da),
        "modality": volume.modality,
        "modality_source": volume.modality_source,
        "unit": volume.unit or ("HU" if volume.modality == "CT" else None),
        "time_step": None if volume.time_step is None else list(volume.time_step),
        "labels": None if names is None else {str(key): names[key] for key in sorted(names)},
        "intensity": {
            "min": found.minimum,
            "max": found.maximum,
            "p0_5": found.percentiles[0],
            "p99_5": found.percentiles[1],
        },
        "voxels_not_finite": found.not_finite,
        "notes": [*volume.notes, *_sample_note(found)],
    }


def _sample_note(found: Statistics) -> list[str]:
    sentence = (
        f"The scan is larger than {EXACT_VOXELS:,} voxels; its intensities are those of a sample "
        f"of {found.voxels:,} voxels, evenly spaced."
    )
    return [sentence] if found.sampled else []
