"""A scan in memory: its voxels as stored, its true geometry, and the grid it came from."""

from __future__ import annotations

import dataclasses
import uuid
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.anisotropy import FLAT, degree_of_anisotropy
from spad.volumes.axes import (
    degrees_off_axis,
    from_file_order,
    orientation_letters,
    shear_degrees,
    to_file_order,
)
from spad.volumes.colors import Rgba
from spad.volumes.depth import depth_axis
from spad.volumes.intensity import guess_modality

AXES = ("zyx", "tzyx", "czyx", "tczyx")
OBLIQUE_DEGREES = 0.1
SHEAR_DEGREES = 0.01


@dataclass(frozen=True, eq=False)
class SourceGrid:
    """The grid of a file, and all that is needed to write onto it again.

    Attributes:
        path: the file or folder, or None for data made in memory.
        format: "nifti1", "nifti2", "analyze", "nrrd", "mha", "dicom", "image", "numpy",
            "ome-zarr" or "none".
        shape: the file's shape in its own order (i, j, k[, t][, c]).
        dtype: the file's type of voxel.
        affine: (4, 4) float64, file index (i, j, k) to RAS+ mm.
        permutation: axis a of `Volume.array` is file axis `permutation[a]`.
        flips: for each axis of `Volume.array`, whether it runs against the file's axis.
        header: the format's own header, to copy when writing that format, or None.
        uuid: names this grid among those that are open.
        axes: the file's axes in its own order: "ijk", "ijkt", "ijkc" or "ijktc".
    """

    path: str | None
    format: str
    shape: tuple[int, ...]
    dtype: np.dtype
    affine: np.ndarray
    permutation: tuple[int, ...]
    flips: tuple[bool, ...]
    header: Any = None
    uuid: str = dataclasses.field(default_factory=lambda: uuid.uuid4().hex)
    axes: str = "ijk"


@dataclass(frozen=True, eq=False)
class Volume:
    """A scan or its labels, with depth first.

    Attributes:
        array: voxels as stored (a memory map or a view will do), shape as `axes` says.
        affine: (4, 4) float64, index of the three spatial axes of `array` to RAS+ mm.
        axes: "zyx", "tzyx" (times), "czyx" (channels) or "tczyx"; z is the depth axis.
        source: the grid of the file it was read from.
        slope: unit per stored step; the scan's unit is `array * slope + intercept`.
        intercept: the unit's value of a stored 0.
        depth_reason: one sentence: why this axis is depth.
        label_names: id to name for labels, None for an image.
        modality_hint: "CT", "MR", ... as a header or a person says, else None.
        report: figures of the work that made this volume, if any.
        notes: sentences a person should read about the file (an orientation that is not stated).
        label_colors: id to (red, green, blue, alpha), each 0 to 1, for labels whose file says so.
        name: what to call it on screen (a series description), or None.
        unit: "HU", "SUV" (g/mL), "Bq/ml", ... as the file says, else None.
        rgb: whether the channels are red, green, blue[, alpha].
        time_step: step of the time axis and its unit ("s", "ms", "us" or "pixel"), or None.
        window: lowest and highest value that the file wants displayed, in the scan's unit.
    """

    array: np.ndarray
    affine: np.ndarray
    axes: str
    source: SourceGrid
    slope: float = 1.0
    intercept: float = 0.0
    depth_reason: str = ""
    label_names: dict[int, str] | None = None
    modality_hint: str | None = None
    report: dict[str, Any] | None = None
    notes: tuple[str, ...] = ()
    label_colors: dict[int, Rgba] | None = None
    name: str | None = None
    unit: str | None = None
    rgb: bool = False
    time_step: tuple[float, str] | None = None
    window: tuple[float, float] | None = None

    @classmethod
    def from_array(
        cls,
        array: np.ndarray,
        affine: np.ndarray,
        *,
        axes: str = "zyx",
        label_names: dict[int, str] | None = None,
        modality_hint: str | None = None,
        slope: float = 1.0,
        intercept: float = 0.0,
        report: dict[str, Any] | None = None,
        rgb: bool = False,
        depth_reason: str = "Made in memory: the first axis is depth.",
    ) -> Volume:
        """Make a volume of data that no file holds.

        Written to a file, its axes come out reversed (x, y, z), as files have them, then time,
        then channels.

        Args:
            array: shape as `axes` says, depth first of the three spatial axes.
            affine: (4, 4), index (z, y, x) to RAS+ mm.
            axes: "zyx", "tzyx", "czyx" or "tczyx".
            label_names: id to name, for labels.
            modality_hint: "CT", "MR", ... if it is known.
            slope: unit per stored step.
            intercept: the unit's value of a stored 0.
            report: figures of the work that made it.
            rgb: whether the channels are red, green, blue[, alpha].
            depth_reason: why the first axis is depth.

        Returns:
            The volume, on a source grid of its own (format "none").

        Raises:
            SpadError: the array is empty, its axes do not match or the affine cannot be used.
        """
        array = _checked_array(array, axes)
        affine = checked_affine(affine, "The array")
        leading = len(axes) - 3
        permutation = (*range(3, 3 + leading), 2, 1, 0)
        shape = tuple(array.shape[-3:][::-1]) + tuple(array.shape[:-3])
        source = SourceGrid(
            path=None,
            format="none",
            shape=shape,
            dtype=array.dtype,
            affine=affine[:, [2, 1, 0, 3]],
            permutation=permutation,
            flips=(False,) * len(axes),
            axes="ijk" + axes[:-3],
        )
        return cls(
            array=array,
            affine=affine,
            axes=axes,
            source=source,
            slope=float(slope),
            intercept=float(intercept),
            depth_reason=depth_reason,
            label_names=None if label_names is None else dict(label_names),
            modality_hint=modality_hint,
            report=report,
            rgb=rgb,
        )

    def with_array(
        self,
        array: np.ndarray,
        *,
        label_names: dict[int, str] | None = None,
        slope: float = 1.0,
        intercept: float = 0.0,
        report: dict[str, Any] | None = None,
    ) -> Volume:
        """Put other data on this volume's grid: labels, a reconstruction, an error map.

        Args:
            array: the shape of this volume's array, or of its three spatial axes (for each time).
            label_names: id to name if the data are labels ({} if they have no names).
            slope: unit per stored step of the new data.
            intercept: the unit's value of a stored 0 of the new data.
            report: figures of the work that made the data.

        Returns:
            A volume with the same affine and source grid.

        Raises:
            SpadError: the array lies on another grid.
        """
        if array.shape == self.array.shape:
            axes = self.axes
        elif array.shape == self.spatial_shape:
            axes = "zyx"
        elif self.axes == "tczyx" and array.shape == (self.array.shape[0], *self.spatial_shape):
            axes = "tzyx"
        else:
            raise SpadError(
                f"An array of shape {array.shape} was given for a scan of shape "
                f"{self.array.shape}; give data that lie on the scan's own grid."
            )
        return dataclasses.replace(
            self,
            array=array,
            axes=axes,
            slope=float(slope),
            intercept=float(intercept),
            label_names=None if label_names is None else dict(label_names),
            report=report,
            notes=(),
            label_colors=None,
            unit=None,
            rgb=self.rgb and "c" in axes,
            window=None,
        )

    def with_depth(self, axis: int) -> Volume:
        """Take another axis as depth.

        Args:
            axis: 0, 1 or 2: the file's axis i, j or k.

        Returns:
            A view of the same data and file with that axis first.

        Raises:
            SpadError: there is no such axis.
        """
        axis, reason = depth_axis(self.spatial_shape, self.affine, stated=axis)
        spatial = (axis, *(other for other in range(3) if other != axis))
        lead = self.source.permutation[:-3]
        source = dataclasses.replace(
            self.source, permutation=lead + spatial, flips=(False,) * (len(lead) + 3)
        )
        array = from_file_order(to_file_order(self.array, self.source), source)
        affine = self.source.affine[:, [*spatial, 3]]
        return dataclasses.replace(
            self, array=array, affine=affine, source=source, depth_reason=reason
        )

    def with_modality(self, modality: str | None) -> Volume:
        """Take a person's word for the modality ("CT", "MR", ...)."""
        return dataclasses.replace(self, modality_hint=modality)

    def values(self, region: tuple[Any, ...] | slice | int | None = None) -> np.ndarray:
        """Give voxels in the scan's unit (HU for CT).

        Args:
            region: an index of `array` (slices), or None for all of it.

        Returns:
            A new float32 array; NaN voxels stay NaN.
        """
        stored = self.array if region is None else self.array[region]
        values = np.array(stored, dtype=np.float32)
        if self.slope != 1:
            values *= np.float32(self.slope)
        if self.intercept != 0:
            values += np.float32(self.intercept)
        return values

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Voxel spacing in mm along z (depth), y and x."""
        z, y, x = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(z), float(y), float(x)

    @property
    def spatial_shape(self) -> tuple[int, int, int]:
        """Voxels along z (depth), y and x."""
        z, y, x = self.array.shape[-3:]
        return z, y, x

    @property
    def orientation(self) -> str:
        """Three letters towards which the indices of z, y and x increase, such as "SAL"."""
        return orientation_letters(self.affine)

    @property
    def is_oblique(self) -> bool:
        """Whether any axis is more than 0.1 degrees off the nearest axis of the body."""
        return degrees_off_axis(self.affine) > OBLIQUE_DEGREES

    @property
    def is_sheared(self) -> bool:
        """Whether two axes are more than 0.01 degrees off a right angle (gantry tilt)."""
        return shear_degrees(self.affine) > SHEAR_DEGREES

    @property
    def da(self) -> int:
        """Degree of anisotropy, 0 to 5; 5 for a single slice, whose depth spacing says nothing."""
        return FLAT if self.spatial_shape[0] == 1 else degree_of_anisotropy(self.spacing)

    @property
    def is_labels(self) -> bool:
        """Whether the voxels are labels."""
        return self.label_names is not None

    @property
    def modality(self) -> str | None:
        """A DICOM code such as "CT", "MR", "PT" or "US"; None where nothing tells."""
        return self._guess[0]

    @property
    def modality_source(self) -> str | None:
        """What tells the modality: "header", "file name", "intensity" or None."""
        return self._guess[1]

    @cached_property
    def _guess(self) -> tuple[str | None, str | None]:
        return guess_modality(self)


def _checked_array(array: np.ndarray, axes: str) -> np.ndarray:
    array = np.asanyarray(array)
    if axes not in AXES or array.ndim != len(axes):
        raise SpadError(
            f"An array of shape {array.shape} was given as axes {axes!r}; expected one axis per "
            f"letter of {', '.join(AXES)}; give such an array."
        )
    if 0 in array.shape:
        raise SpadError(
            f"An array is empty (shape {array.shape}); expected at least one voxel per axis; "
            "give one that has."
        )
    return array


def checked_affine(affine: np.ndarray, name: str) -> np.ndarray:
    """Give a copy of an affine in float64, if a scan can have it.

    Args:
        affine: (4, 4), index to RAS+ mm.
        name: what it belongs to, for the error's sentence.

    Returns:
        The affine, float64.

    Raises:
        SpadError: wrong shape, NaN, zero spacing or not invertible.
    """
    affine = np.array(affine, dtype=float)
    if affine.shape != (4, 4) or not np.allclose(affine[3], (0, 0, 0, 1)):
        raise SpadError(
            f"{name} has an affine of shape {affine.shape} with last row "
            f"{affine[-1].tolist() if affine.ndim else affine}; expected a 4 x 4 matrix whose "
            "last row is 0 0 0 1; correct the geometry and try again."
        )
    if not np.isfinite(affine).all():
        raise SpadError(
            f"{name} has an affine with NaN or infinite entries; expected finite millimetres; "
            "correct the header and try again."
        )
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    if (spacing <= 0).any():
        raise SpadError(
            f"{name} has a voxel spacing of {_numbers(spacing)} mm; expected three positive "
            "numbers; correct the header and try again."
        )
    if abs(np.linalg.det(affine[:3, :3] / spacing)) < 1e-3:
        raise SpadError(
            f"{name} has an affine that cannot be inverted (two of its axes run the same way); "
            "expected three independent axes; correct the header and try again."
        )
    return affine


def _numbers(values: np.ndarray) -> str:
    return " x ".join(f"{value:.6g}" for value in values)
