"""The place under the mouse: true millimetres, the file's voxel, and its value."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.volumes.axes import canonical_order

if TYPE_CHECKING:
    from napari.layers import Layer

    from spad.volumes.volume import Volume

_WITHOUT_ORIENTATION = ("image", "numpy")
_NOT_STATED = re.compile(r"states no (anatomical )?orientation")
_AXES = {"t": "time", "c": "channel"}


@dataclass(frozen=True)
class Place:
    """A voxel of an open scan.

    Attributes:
        mm: R, A and S in millimetres (the voxel's centre), by the scan's own affine; x, y and z
            along the file's axes from the first voxel's centre where it states no orientation.
        voxel: the index along the file's axes i, j and k.
        leading: which time and which channel, by name.
        value: in the scan's unit; several numbers for colours; None where it is not known.
        unit: "HU", "SUV", ... or "".
        oriented: whether `mm` is R, A and S.
    """

    mm: tuple[float, float, float]
    voxel: tuple[int, int, int]
    leading: tuple[tuple[str, int], ...]
    value: float | tuple[float, ...] | None
    unit: str
    oriented: bool = True

    @property
    def mm_words(self) -> str:
        """Write the place as "R 12.0 A -3.1 S 44.0 mm"; the letters never change."""
        letters = "RAS" if self.oriented else "xyz"
        pairs = zip(letters, self.mm, strict=True)
        return " ".join(f"{letter} {_tenths(value)}" for letter, value in pairs) + " mm"

    @property
    def voxel_words(self) -> str:
        """Write the voxel and its value: "voxel 120, 88, 45: 54 HU"."""
        words = "voxel " + ", ".join(str(n) for n in self.voxel)
        for name, index in self.leading:
            words += f", {name} {index}"
        shown = _number(self.value)
        return f"{words}: {shown} {self.unit}".rstrip() if shown else words


def place_under(
    layer: Layer,
    volume: Volume,
    position: Sequence[float],
    displayed: Sequence[int] | None = None,
) -> Place | None:
    """Find the voxel under a position of napari's world.

    Args:
        layer: the layer that shows the scan.
        volume: the scan, whose affine and file order rule (napari's world is not true for
            oblique scans).
        position: napari's world, as many axes as the viewer has.
        displayed: the viewer's displayed axes, to ask the layer for values that are not in
            memory; None looks only in memory.

    Returns:
        The place, or None outside of the scan.
    """
    if len(position) < layer.ndim:
        return None
    at = np.floor(np.asarray(layer.world_to_data(position), float) + 0.5)
    shape = _shape(layer)
    if not np.all(np.isfinite(at)) or np.any(at < 0) or np.any(at >= shape):
        return None
    index = tuple(int(n) for n in at)
    stored = _stored_index(volume, index[-3:])
    oriented = knows_orientation(volume)
    voxel = _file_index(volume, stored)
    if oriented:
        mm = volume.affine[:3, :3] @ stored + volume.affine[:3, 3]
    else:
        mm = np.linalg.norm(volume.source.affine[:3, :3], axis=0) * voxel
    names = [_AXES.get(letter, letter) for letter in volume.axes[:-3] if letter in _AXES]
    return Place(
        mm=(float(mm[0]), float(mm[1]), float(mm[2])),
        voxel=voxel,
        leading=tuple(zip(names, index[:-3], strict=False)),
        value=_value(layer, index, position, displayed),
        unit=unit_of(volume),
        oriented=oriented,
    )


def knows_orientation(volume: Volume) -> bool:
    """Whether a file says where the patient's right, front and head are.

    Pictures and arrays do not, nor files whose reader noted so; their millimetres have no R, A
    and S, and the screen shows no letters.
    """
    if volume.source.format in _WITHOUT_ORIENTATION:
        return False
    return not any(_NOT_STATED.search(note) for note in volume.notes)


def unit_of(volume: Volume) -> str:
    """Give the unit of a scan's values: as its file says, HU for any CT, else ""."""
    if volume.is_labels:
        return ""
    return volume.unit or ("HU" if volume.modality == "CT" else "")


def _stored_index(volume: Volume, canonical: Sequence[int]) -> np.ndarray:
    """Turn an index along S-I, A-P and R-L into one of the spatial axes of `Volume.array`."""
    order, flips = canonical_order(volume.affine, depth_first=False)
    stored = np.zeros(3, int)
    for at, axis, flip in zip(canonical, order, flips, strict=True):
        stored[axis] = volume.spatial_shape[axis] - 1 - at if flip else at
    return stored


def _file_index(volume: Volume, stored: np.ndarray) -> tuple[int, int, int]:
    source = volume.source
    found = [0, 0, 0]
    spatial = zip(source.permutation[-3:], source.flips[-3:], strict=True)
    for axis, (file_axis, flip) in enumerate(spatial):
        at = int(stored[axis])
        found[file_axis] = volume.spatial_shape[axis] - 1 - at if flip else at
    return found[0], found[1], found[2]


def _shape(layer: Any) -> tuple[int, ...]:
    data = layer.data[0] if getattr(layer, "multiscale", False) else layer.data
    shape: tuple[int, ...] = tuple(data.shape)[: layer.ndim]
    return shape


def _value(
    layer: Any, index: tuple[int, ...], position: Sequence[float], displayed: Sequence[int] | None
) -> float | tuple[float, ...] | None:
    if isinstance(layer.data, np.ndarray):
        value: Any = layer.data[index]
    elif displayed is None or not layer.visible:
        return None
    else:
        value = layer.get_value(position, dims_displayed=list(displayed), world=True)
        if getattr(layer, "multiscale", False) and isinstance(value, tuple):
            value = value[1]
    if value is None:
        return None
    if np.ndim(value):
        return tuple(float(one) for one in np.asarray(value).ravel())
    return float(value)


def _number(value: float | tuple[float, ...] | None) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "(" + ", ".join(_number(one) for one in value) + ")"
    if not np.isfinite(value):
        return "no number" if np.isnan(value) else "infinite"
    return f"{value:.0f}" if float(value).is_integer() else f"{value:.4g}"


def _tenths(value: float) -> str:
    words = f"{value:.1f}"
    return "0.0" if words == "-0.0" else words
