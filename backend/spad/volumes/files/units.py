"""Millimetres for formats that state little: units by name, densities, and which spacing counts."""

from __future__ import annotations

import math
from pathlib import Path

from spad.errors import SpadError
from spad.volumes.files.options import Options

Steps = tuple[float | None, float | None, float | None]
HOW_TO_STATE = "with --spacing on the command line or in the form of Scan > Open"
RADIOLOGICAL = (
    "The file states no anatomical orientation; read as if radiological: columns run to the left, "
    "rows to posterior and slices to superior."
)
_MILLIMETRES = {
    **dict.fromkeys(("m", "meter", "metre", "meters", "metres"), 1000.0),
    **dict.fromkeys(("dm", "decimeter", "decimetre"), 100.0),
    **dict.fromkeys(("cm", "centimeter", "centimetre", "centimeters", "centimetres"), 10.0),
    **dict.fromkeys(("mm", "millimeter", "millimetre", "millimeters", "millimetres"), 1.0),
    **dict.fromkeys(("um", "\u00b5m", "\u03bcm", "\\u00b5m", "micron", "microns"), 1e-3),
    **dict.fromkeys(("micrometer", "micrometre", "micrometers", "micrometres"), 1e-3),
    **dict.fromkeys(("nm", "nanometer", "nanometre", "nanometers", "nanometres"), 1e-6),
    **dict.fromkeys(("pm", "picometer", "picometre"), 1e-9),
    **dict.fromkeys(("\u00e5", "\u212b", "angstrom"), 1e-7),
    **dict.fromkeys(("in", "inch", "inches"), 25.4),
    **dict.fromkeys(("ft", "foot", "feet"), 304.8),
    **dict.fromkeys(("yd", "yard", "yards"), 914.4),
    "hectometer": 1e5,
    "kilometer": 1e6,
}
_SECONDS = {
    **dict.fromkeys(("s", "sec", "second", "seconds"), (1.0, "s")),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), (1.0, "ms")),
    **dict.fromkeys(
        ("us", "\u00b5s", "\u03bcs", "usec", "microsecond", "microseconds"), (1.0, "us")
    ),
    **dict.fromkeys(("min", "minute", "minutes"), (60.0, "s")),
    **dict.fromkeys(("h", "hour", "hours"), (3600.0, "s")),
    **dict.fromkeys(("ns", "nanosecond"), (1e-3, "us")),
}
# densities that programs write by themselves, for screens and paper
_LAYOUT_DPI = (72, 75, 90, 96, 100, 120, 144, 150, 192, 200, 220, 240, 300, 350, 400, 600, 1200)


def millimetres(unit: str) -> float | None:
    """Give the millimetres in one unit of length ("mm", "micrometer", "inch"), None if unknown."""
    return _MILLIMETRES.get(unit.strip().lower())


def time_step(step: float, unit: str | None) -> tuple[float, str] | None:
    """Give a time step as `Volume.time_step` holds it; None if it is no positive number."""
    if not math.isfinite(step) or step <= 0:
        return None
    factor, name = _SECONDS.get((unit or "").strip().lower(), (1.0, "pixel"))
    return step * factor, name


def spacing_of_density(across: float, down: float) -> tuple[Steps, list[str]]:
    """Judge whether a picture's density is a size of anatomy.

    The rule: densities that programs write by themselves for screens and paper (72, 96, 150, 300
    dpi and the like, within 0.5%) and those above 10 mm per pixel are not; any other is.

    Args:
        across: pixels per inch along a row.
        down: pixels per inch along a column.

    Returns:
        Steps in mm along i, j and k (None where nothing is known) and notes.
    """
    densities = (across, down)
    if not all(math.isfinite(dpi) and dpi > 0 for dpi in densities):
        return (None, None, None), []
    steps = (25.4 / across, 25.4 / down, None)
    said = f"{across:.4g} dpi" if across == down else f"{across:.4g} x {down:.4g} dpi"
    layout = all(any(abs(dpi / usual - 1) < 0.005 for usual in _LAYOUT_DPI) for dpi in densities)
    if layout or max(steps[:2]) > 10:
        note = f"The file's {said} is a density for screens or print, not a size; it is not used."
        return (None, None, None), [note]
    return steps, [f"The spacing comes from the file's density of {said}."]


def choose_spacing(
    path: Path, options: Options, found: Steps, *, flat: bool
) -> tuple[tuple[float, float, float], list[str]]:
    """Choose the spacing: what a person states, else what the file says, else 1 mm with a note.

    Args:
        path: the file, for the error's sentence.
        options: what a person states; two numbers do for a flat picture.
        found: what the file says along i, j and k, None where it says nothing.
        flat: whether there is only one slice.

    Returns:
        mm along i, j and k, and notes.

    Raises:
        SpadError: a spacing is not positive and finite, or two numbers were stated for a volume.
    """
    if options.spacing is not None:
        return _stated(path, options.spacing, found, flat=flat)
    for step in found:
        if step is not None and not (math.isfinite(step) and step > 0):
            raise SpadError(
                f"{path} gives a spacing of {step:g} mm; expected positive numbers; state the "
                f"right spacing {HOW_TO_STATE}."
            )
    missing = [n for n in range(2 if flat else 3) if found[n] is None]
    notes = []
    if missing:
        names = " and ".join("ijk"[n] for n in missing)
        notes.append(
            f"The file states no spacing along {names}; 1 mm is assumed, so sizes and volumes are "
            f"not true unless you state it {HOW_TO_STATE}."
        )
    i, j, k = (1.0 if step is None else float(step) for step in found)
    return (i, j, k), notes


def _stated(
    path: Path, stated: tuple[float, ...], found: Steps, *, flat: bool
) -> tuple[tuple[float, float, float], list[str]]:
    if len(stated) == 2 and not flat:
        raise SpadError(
            f"{path} is a volume, but a spacing of only two numbers was stated; expected three "
            f"(mm along i, j and k, which are x, y and z); state it {HOW_TO_STATE}."
        )
    i, j, k = (*stated, 1.0)[:3]
    used = (float(i), float(j), float(k))
    differs = [
        (said, own)
        for said, own in zip(used[: len(stated)], found, strict=False)
        if own is not None and abs(said - own) > 1e-3 * abs(own)
    ]
    if not differs:
        return used, []
    theirs = " x ".join("?" if step is None else f"{step:.4g}" for step in found)
    ours = " x ".join(f"{step:.4g}" for step in used)
    return used, [f"The file states {theirs} mm; the stated spacing of {ours} mm is used."]
