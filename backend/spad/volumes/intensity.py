"""Intensity contracts: from a scan's unit to [0, 1] and to a model's range, and which modality."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from spad.errors import SpadError
from spad.volumes.statistics import QUICK_VOXELS, Statistics, percentiles, stored_statistics

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

Limits = tuple[float, float]


@dataclass(frozen=True)
class Intensity:
    """How a model wants its intensities; stored in its checkpoint and applied everywhere alike.

    First `low` to `high` becomes 0 to 1, clipped; then the model's own affine is applied,
    `(unit - shift) / scale`.

    Attributes:
        kind: "window" (fixed limits in the scan's unit) or "percentiles" (limits per scan).
        low: the lower limit, in the unit (HU), or in percent of the voxels above the minimum.
        high: the upper limit, alike.
        shift: subtracted from the [0, 1] value for the model.
        scale: then divided by; not 0.
        unit: the scan's unit, "HU" or "1".
    """

    kind: str
    low: float
    high: float
    shift: float = 0.0
    scale: float = 1.0
    unit: str = "1"

    def __post_init__(self) -> None:
        """Refuse a contract that cannot be applied."""
        numbers = (self.low, self.high, self.shift, self.scale)
        good = (
            self.kind in ("window", "percentiles")
            and all(isinstance(n, int | float) and np.isfinite(n) for n in numbers)
            and self.low < self.high
            and self.scale != 0
            and (self.kind == "window" or (self.low >= 0 and self.high <= 100))
        )
        if not good:
            raise SpadError(
                f"An intensity contract says {asdict(self)}; expected kind 'window' or "
                "'percentiles' (0 to 100), finite low < high and a scale that is not 0; use a "
                "checkpoint with a complete contract."
            )

    def limits(self, values: np.ndarray) -> Limits:
        """Find the limits for one scan.

        Args:
            values: the whole scan in its unit, any shape (a crop has other percentiles).

        Returns:
            `(lo, hi)` in the scan's unit, lo < hi.

        Raises:
            SpadError: no voxel is finite.
        """
        if self.kind == "window":
            return float(self.low), float(self.high)
        minimum, low, high = percentiles(values, (self.low, self.high))
        return _apart(minimum, low, high)

    def limits_of(self, volume: Volume, exact_voxels: int | None = None) -> Limits:
        """Find the limits for a volume; quick for stored integers of up to 16 bits.

        Args:
            volume: the whole scan.
            exact_voxels: a volume of more voxels is judged by a sample of it (for the screen);
                None for never, as models need it.

        Returns:
            `(lo, hi)` in the scan's unit, lo < hi.

        Raises:
            SpadError: no voxel is finite.
        """
        if self.kind == "window":
            return float(self.low), float(self.high)
        found = stored_statistics(volume, (self.low, self.high), exact_voxels)
        return _apart(found.minimum, *found.percentiles)

    def to_unit(self, values: np.ndarray, limits: Limits) -> np.ndarray:
        """Scale values to [0, 1].

        Args:
            values: in the scan's unit, any shape; NaN and infinities are allowed.
            limits: from `limits`.

        Returns:
            float32 in [0, 1]; NaN becomes 0 (background).
        """
        lo, hi = limits
        unit = np.array(values, dtype=np.float32)
        unit -= np.float32(lo)
        unit /= np.float32(hi - lo)
        # not np.clip: it would hand NaN on
        np.fmax(unit, np.float32(0), out=unit)
        return np.fmin(unit, np.float32(1), out=unit)

    def to_model(self, unit: np.ndarray) -> np.ndarray:
        """Bring [0, 1] values into the model's range: `(unit - shift) / scale`, float32."""
        return (np.asarray(unit, np.float32) - np.float32(self.shift)) / np.float32(self.scale)

    def from_model(self, values: np.ndarray) -> np.ndarray:
        """Bring the model's range back to [0, 1] values: the inverse of `to_model`, float32."""
        return np.asarray(values, np.float32) * np.float32(self.scale) + np.float32(self.shift)

    def from_unit(self, unit: np.ndarray, limits: Limits) -> np.ndarray:
        """Bring [0, 1] values back to the scan's unit, float32."""
        lo, hi = limits
        return np.asarray(unit, np.float32) * np.float32(hi - lo) + np.float32(lo)

    def to_json(self) -> dict[str, Any]:
        """Give the contract as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Intensity:
        """Read a contract from JSON values.

        Raises:
            SpadError: a key is missing or unknown, or the contract cannot be applied.
        """
        known = {field.name for field in fields(cls)}
        if not isinstance(data, Mapping) or set(data) != known:
            found = sorted(data) if isinstance(data, Mapping) else type(data).__name__
            raise SpadError(
                f"An intensity contract has {found}; expected the keys {sorted(known)}; use a "
                "checkpoint with a complete contract."
            )
        return cls(**data)


CT = Intensity("window", -125.0, 275.0, unit="HU")
MR = Intensity("percentiles", 0.5, 99.5, unit="1")

_NAME_TOKENS = {
    "CT": {"ct", "cbct", "cect", "ncct", "cta", "ctac", "hrct", "ldct"},
    "MR": {
        *("mr", "mri", "mra", "t1", "t2", "t1w", "t2w", "t1c", "t1ce", "t1gd", "t1n", "t2f"),
        *("flair", "dwi", "adc", "swi", "pd", "pdw", "fmri", "bold"),
    },
    "PT": {"pet", "pt", "suv", "fdg"},
    "US": {"us", "ultrasound"},
}


def guess_modality(volume: Volume) -> tuple[str | None, str | None]:
    """Tell the modality of a scan: from the header, else the file's name, else its intensities.

    Tokens of the file's name count only if they agree (folder names do not count). By
    intensities, a minimum of -100 or less is CT in HU; a minimum of 0 or more, voxels wider than
    8 bits and a maximum above 50 are MR; anything else stays open. Scans of more than 16 million
    voxels (`QUICK_VOXELS`) are judged by a sample of 4 million.

    Args:
        volume: a scan; labels have no modality by intensity.

    Returns:
        `(modality, source)`: a DICOM code and "header", "file name" or "intensity"; or two None.
    """
    if volume.modality_hint:
        return volume.modality_hint, "header"
    if volume.source.path:
        named = modality_of_name(Path(volume.source.path).name)
        if named:
            return named, "file name"
    if volume.is_labels:
        return None, None
    found = stored_statistics(volume, (), QUICK_VOXELS)
    modality = _by_intensity(found, volume.source.dtype)
    return modality, "intensity" if modality else None


def modality_of_name(name: str) -> str | None:
    """Tell the modality from the tokens of a file name; None if none or several are named."""
    tokens = set(re.split(r"[^a-z0-9]+", name.lower()))
    named = [modality for modality, words in _NAME_TOKENS.items() if tokens & words]
    return named[0] if len(named) == 1 else None


def _by_intensity(found: Statistics, dtype: np.dtype) -> str | None:
    if found.minimum <= -100:
        return "CT"
    if found.minimum >= 0 and found.maximum > 50 and np.dtype(dtype).itemsize > 1:
        return "MR"
    return None


def _apart(minimum: float, low: float, high: float) -> Limits:
    """Keep the limits of a nearly constant scan from falling together."""
    if high <= low:
        low = minimum
    if high <= low:
        high = low + 1
    return low, high
