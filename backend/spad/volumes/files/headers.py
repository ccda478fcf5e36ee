"""What text headers (NRRD, MetaImage) share: finding their end, numbers, lengths, flat images."""

from __future__ import annotations

import math
import re
from pathlib import Path

import numpy as np

from spad.errors import SpadError
from spad.volumes.files.disk import open_checked
from spad.volumes.files.units import millimetres

HEADER_LIMIT = 1 << 22
"""Bytes of header that are read at most; the longest known (Slicer, 117 organs) has 100 KB."""

_MOST_VOXELS = 1 << 48
_LENGTHS = (1e-6, 1e6)
_FARTHEST = 1e9
_UNSTATED = ("", "?", "???", "none", "unknown")


def read_text(path: Path, end: bytes) -> tuple[str, int]:
    """Read a header up to the mark that ends it, and no more than `HEADER_LIMIT` bytes.

    Args:
        path: the file.
        end: a regular expression of the mark.

    Returns:
        The text up to the end of the mark (or of the file, if there is none; UTF-8, else
        Latin-1), and the byte after it.

    Raises:
        SpadError: the file cannot be read, or no mark is found where it should be.
    """
    mark = re.compile(end)
    held, step = b"", 1 << 14
    with open_checked(path) as file:
        while len(held) < HEADER_LIMIT:
            data = file.read(step)
            # a mark may lie across two pieces
            found = mark.search(held + data, max(len(held) - 4096, 0))
            held += data
            if found or not data:
                held = held[: found.end()] if found else held
                try:
                    return held.decode("utf-8"), len(held)
                except UnicodeDecodeError:
                    return held.decode("latin-1"), len(held)
            step = len(held)
    raise SpadError(
        f"{path} has a header of more than {HEADER_LIMIT >> 20} MiB without an end; expected a "
        "text header before the voxels; check that it is the right file and complete."
    )


def numbers(text: str, count: int | None, what: str, path: Path) -> list[float]:
    """Parse a list of numbers.

    Args:
        text: numbers with blanks between them.
        count: how many are expected, or None for any.
        what: the field's name, for the error's sentence.
        path: the file, for the error's sentence.

    Returns:
        The numbers; NaN and infinite ones are left to the caller.

    Raises:
        SpadError: it holds something else, or another number of them.
    """
    try:
        found = [float(word) for word in text.split()]
    except ValueError:
        found = []
    if not found or (count is not None and len(found) != count):
        raise SpadError(
            f"{path} gives {text[:80]!r} as its {what}; expected "
            f"{'numbers' if count is None else f'{count} number(s)'}; correct the header or export "
            "the scan again."
        )
    return found


def whole(text: str, what: str, path: Path, least: int, most: int) -> int:
    """Parse one whole number within limits, as `numbers` does."""
    try:
        found = int(text) if len(text) < 25 else most + 1
    except ValueError:
        found = least - 1
    if not least <= found <= most:
        raise SpadError(
            f"{path} gives {text[:80]!r} as its {what}; expected a whole number from {least} to "
            f"{most}; correct the header or export the scan again."
        )
    return found


def sizes_of(text: str, dimension: int, what: str, path: Path) -> tuple[int, ...]:
    """Parse the voxels along each axis and refuse what no scan has."""
    words = text.split()
    sizes = tuple(whole(word, what, path, 1, (1 << 31) - 1) for word in words[: dimension + 1])
    if len(sizes) != dimension or math.prod(sizes) > _MOST_VOXELS:
        raise SpadError(
            f"{path} gives the {what} {text[:80]!r} for {dimension} axes; expected one number per "
            "axis that a scan can have; correct the header or export the scan again."
        )
    return sizes


def check_lengths(columns: np.ndarray, origin: np.ndarray, path: Path) -> None:
    """Refuse steps and places that no scan has.

    Args:
        columns: (n, axes), each column the step of one axis in mm.
        origin: (n,), the place of the first voxel in mm.
        path: the file, for the error's sentence.

    Raises:
        SpadError: NaN, infinite, zero, or beyond 1e-6 to 1e6 mm (1e9 mm for the origin).
    """
    finite = np.isfinite(columns).all() and np.isfinite(origin).all()
    steps = np.linalg.norm(columns, axis=0) if finite and np.abs(columns).max() < 1e12 else [0.0]
    if not finite or min(steps) < _LENGTHS[0] or max(steps) > _LENGTHS[1]:
        said = " x ".join(f"{step:g}" for step in np.abs(columns).max(0))
        raise SpadError(
            f"{path} gives voxel steps of {said} mm; expected positive, finite numbers along each "
            "axis; correct the header or export the scan again."
        )
    if np.abs(origin).max() > _FARTHEST:
        said = ", ".join(f"{place:g}" for place in origin)
        raise SpadError(
            f"{path} places its first voxel at ({said}) mm; expected a place within a scanner; "
            "correct the header or export the scan again."
        )


def lengths_in_mm(unit: str) -> float | None:
    """Give what one unit of length is in mm; 1 if none is stated, None for an unknown one."""
    return 1.0 if unit.strip().lower() in _UNSTATED else millimetres(unit)


def third_axis(columns: np.ndarray) -> np.ndarray:
    """Add a step of 1 mm along the normal to the two axes of a flat image.

    Args:
        columns: (3, 2), the steps of i and j in mm.

    Returns:
        (3, 3); the third column points as in a right-handed system.
    """
    normal = np.cross(columns[:, 0], columns[:, 1])
    length = float(np.linalg.norm(normal))
    return np.column_stack([columns, normal / length if length > 0 else normal])
