"""Window presets: which values are black and which are white, as radiologists name them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np

from spad.errors import SpadError
from spad.volumes.intensity import CT as MODELS_CT
from spad.volumes.statistics import SAMPLE_VOXELS, stored_statistics

if TYPE_CHECKING:
    from spad.volumes.volume import Volume

OWN_KEY = 9
"""The number key of the file's own window; the others are numbered from 1."""
_EQUAL, _ALIKE = 1e-3, 2e-2
_percentiles: WeakKeyDictionary[Volume, dict[Preset, tuple[float, float]]] = WeakKeyDictionary()


@dataclass(frozen=True)
class Preset:
    """A named window.

    Attributes:
        name: what it is for.
        kind: "window" (limits in the scan's unit), "percentiles" (of the voxels above the lowest)
            or "file" (as the file itself says).
        low: the value or the percentile that is drawn black.
        high: the value or the percentile that is drawn white.
    """

    name: str
    kind: str
    low: float
    high: float

    @property
    def words(self) -> str:
        """Name it with its figures: "Liver  W 150 L 30"."""
        if self.kind == "percentiles":
            return f"{self.name}  {self.low:g} to {self.high:g} %"
        if "SUV" in self.name:
            return self.name
        return f"{self.name}  {width_and_level(self.low, self.high)}"


def _hounsfield(name: str, width: float, level: float) -> Preset:
    return Preset(name, "window", level - width / 2, level + width / 2)


CT = (
    _hounsfield("Soft tissue", 400, 40),
    _hounsfield("Liver", 150, 30),
    _hounsfield("Lung", 1500, -600),
    _hounsfield("Bone", 1800, 400),
    _hounsfield("Brain", 80, 40),
    _hounsfield("Mediastinum", 350, 50),
    Preset("Abdomen", "window", MODELS_CT.low, MODELS_CT.high),
)
"""Widths and levels in HU of Radiopaedia's table (Murphy A, Windowing (CT),
https://radiopaedia.org/articles/windowing-ct); soft tissue at level 40 as in the OHIF viewer;
"Abdomen" is what our models see of a CT."""

PET = (
    Preset("SUV 0 to 5", "window", 0.0, 5.0),
    Preset("SUV 0 to 10", "window", 0.0, 10.0),
    Preset("SUV 0 to 20", "window", 0.0, 20.0),
)
"""Standardised uptake values, in g/mL."""

_IF_SUV = tuple(replace(preset, name=f"{preset.name[4:]}, if SUV") for preset in PET)

PERCENTILES = (
    Preset("Full", "percentiles", 0.5, 99.5),
    Preset("More contrast", "percentiles", 2.0, 98.0),
    Preset("Strong contrast", "percentiles", 10.0, 90.0),
)


def presets(volume: Volume) -> tuple[Preset, ...]:
    """List the windows that fit a scan, in the order of their keys.

    Args:
        volume: a scan of one value per voxel.

    Returns:
        For CT the named windows, for PET in SUV (or no unit) those, for anything else percentiles;
        last the window that the file itself states, if it does.
    """
    found: tuple[Preset, ...] = PERCENTILES
    if volume.modality == "CT":
        found = CT
    elif volume.modality == "PT" and volume.unit in ("SUV", None):
        # a NIfTI file does not say whether it holds SUV
        found = (*(PET if volume.unit else _IF_SUV), *PERCENTILES[:2])
    return found if volume.window is None else (*found, own(volume.window))


def key_number(preset: Preset, volume: Volume) -> int:
    """Give the number key of a preset: its place in the list, or that of the file's own."""
    return OWN_KEY if preset.kind == "file" else presets(volume).index(preset) + 1


def by_key(number: int, volume: Volume) -> Preset | None:
    """Give the preset of a number key, or None if a scan has none there."""
    found = presets(volume)
    if number == OWN_KEY:
        return found[-1] if found[-1].kind == "file" else None
    if not 1 <= number <= len(found) or found[number - 1].kind == "file":
        return None
    return found[number - 1]


def own(window: tuple[float, float]) -> Preset:
    """Give the window that a file states for itself."""
    return Preset("The file's own", "file", float(window[0]), float(window[1]))


def limits(preset: Preset, volume: Volume) -> tuple[float, float]:
    """Give the limits of a preset in the scan's unit.

    Args:
        preset: one of `presets(volume)`.
        volume: the scan; percentiles of a large one are those of a sample of its slices.

    Returns:
        (black, white), black below white.
    """
    if preset.kind != "percentiles":
        return preset.low, preset.high
    if volume not in _percentiles:
        _percentiles[volume] = _all_percentiles(volume)
    return _percentiles[volume][preset]


def _all_percentiles(volume: Volume) -> dict[Preset, tuple[float, float]]:
    """Find the limits of all percentile windows in one pass."""
    percents = [value for preset in PERCENTILES for value in (preset.low, preset.high)]
    try:
        found = stored_statistics(volume, percents, SAMPLE_VOXELS)
    except SpadError:
        return dict.fromkeys(PERCENTILES, (0.0, 1.0))
    ends = zip(found.percentiles[::2], found.percentiles[1::2], strict=True)
    apart = [(low, high) if high > low else (low, low + 1) for low, high in ends]
    return dict(zip(PERCENTILES, apart, strict=True))


def chosen(volume: Volume, shown: tuple[float, float]) -> Preset | None:
    """Tell which preset a layer shows by its contrast limits, if it is one of them."""
    for preset in presets(volume):
        low, high = limits(preset, volume)
        close = (high - low) * (_ALIKE if preset.kind == "percentiles" else _EQUAL)
        if np.allclose((low, high), shown, rtol=0, atol=close):
            return preset
    return None


def apply(layer: Any, volume: Volume, preset: Preset) -> None:
    """Show a layer with a preset."""
    low, high = limits(preset, volume)
    widest = layer.contrast_limits_range
    # napari clips the limits to the slider's range
    layer.contrast_limits_range = (min(low, widest[0]), max(high, widest[1]))
    layer.contrast_limits = (low, high)


def width_and_level(low: float, high: float) -> str:
    """Write a window as radiologists do: "W 400 L 40"."""
    digits = 0 if high - low >= 20 else 2
    width, level = (f"{value:.{digits}f}" for value in (high - low, (high + low) / 2))
    return f"W {_plain(width)} L {_plain(level)}"


def _plain(number: str) -> str:
    number = number.rstrip("0").rstrip(".") if "." in number else number
    return "0" if number in ("-0", "") else number
