"""A scan's geometry in words."""

from __future__ import annotations

from pathlib import Path

from napari_spad import grids
from napari_spad.cursor import knows_orientation, unit_of
from spad.errors import SpadError
from spad.volumes.axes import (
    axis_assignment,
    degrees_off_axis,
    orientation_letters,
    shear_degrees,
)
from spad.volumes.statistics import QUICK_VOXELS, stored_statistics
from spad.volumes.volume import Volume

FIELDS = ("Size", "Spacing", "Orientation", "Tilt", "Anisotropy", "Values", "File")

_PLANE_OF_WORLD = ("sagittal", "coronal", "axial")
_RUNS = ("R-L", "A-P", "S-I")
_LEADING = {"t": "times", "c": "channels"}
_KINDS = {
    "nifti1": "NIfTI-1",
    "nifti2": "NIfTI-2",
    "analyze": "Analyze 7.5",
    "nrrd": "NRRD",
    "mha": "MetaImage",
    "dicom": "DICOM",
    "image": "picture",
    "numpy": "numpy",
    "ome-zarr": "OME-Zarr",
    "none": "made in memory",
}


def describe(volume: Volume) -> dict[str, str]:
    """Put a scan's geometry into words, in the order in which a layer shows it.

    Args:
        volume: a scan or labels.

    Returns:
        Words for each of `FIELDS`.
    """
    place = grids.place(volume)
    size = " × ".join(str(n) for n in place.shape) + " voxels"
    for letter, count in zip(volume.axes[:-3], volume.array.shape, strict=False):
        colours = letter == "c" and volume.rgb
        size += " in colour" if colours else f", {count} {_LEADING[letter]}"
    return {
        "Size": f"{size}\n(S-I × A-P × R-L)",
        "Spacing": " × ".join(f"{step:.3g}" for step in place.scale) + " mm",
        "Orientation": _orientation_words(volume),
        "Tilt": tilt_words(volume),
        "Anisotropy": _anisotropy_words(volume),
        "Values": value_words(volume),
        "File": _file_words(volume),
    }


def depth_words(volume: Volume, axis: int) -> str:
    """Name a file's axis as a depth axis: "S-I: axial, 5 mm (axis k)"."""
    affine = volume.source.affine
    world, _ = axis_assignment(affine)
    toward = int(world[axis])
    step = float((affine[:3, axis] ** 2).sum() ** 0.5)
    return f"{_RUNS[toward]}: {_PLANE_OF_WORLD[toward]}, {step:.3g} mm (axis {'ijk'[axis]})"


def tilt_words(volume: Volume) -> str:
    """Say how a scan is tilted against the body, and whether its slices are shifted (gantry)."""
    on_grid = "shown on its own voxel grid"
    if volume.is_sheared:
        degrees = shear_degrees(volume.affine)
        return f"gantry tilt of {degrees:.1f}°: each slice is shifted against the last; {on_grid}"
    if not volume.is_oblique:
        return "none"
    return f"{degrees_off_axis(volume.affine):.1f}° off the body's axes; {on_grid}"


def value_words(volume: Volume) -> str:
    """Give the range of the values with their unit; of a large scan that of a sample, "about"."""
    if volume.is_labels:
        names = volume.label_names or {}
        if not names:
            return "labels without names"
        shown = ", ".join(name.replace("_", " ") for _, name in sorted(names.items())[:3])
        return f"{len(names)} labels: {shown}{', ...' if len(names) > 3 else ''}"
    try:
        found = stored_statistics(volume, (), QUICK_VOXELS)
    except SpadError:
        return "no finite voxel"
    about = "about " if found.sampled else ""
    words = f"{about}{found.minimum:.5g} to {found.maximum:.5g} {unit_of(volume)}".rstrip()
    if found.not_finite:
        words += f"; {found.not_finite} voxels are no number"
    return words + (" (from a sample)" if found.sampled else "")


def _orientation_words(volume: Volume) -> str:
    if not knows_orientation(volume):
        return "not stated in the file: which side is right is a guess, so no letters are shown"
    letters = orientation_letters(volume.source.affine)
    return f"{letters} in the file (i, j, k)"


def _anisotropy_words(volume: Volume) -> str:
    if volume.da >= 5:
        return "da = 5: a flat (2D) scan"
    if volume.da == 0:
        return "da = 0: slices less than 2 times as thick as pixels"
    return f"da = {volume.da}: slices at least {2**volume.da} times as thick as pixels"


def _file_words(volume: Volume) -> str:
    kind = _KINDS.get(volume.source.format, volume.source.format)
    dtype = volume.source.dtype.newbyteorder("=")
    if volume.source.path is None:
        return f"not saved yet, {dtype}"
    return f"{Path(volume.source.path).name}, {kind}, {dtype}"
