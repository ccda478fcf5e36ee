"""Whether an object looks as it should: in one piece, inside the scan, on its side of the body."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from spad.prompts.part import Slices

_SIDES = {"left": "right", "right": "left"}


@dataclass(frozen=True, eq=False)
class Finding:
    """Something odd about an object.

    Attributes:
        words: what, in a few words.
        repair: what one key does about it, "" for nothing.
        mask: the object repaired in its box, where that is the repair.
        other: the name that it should have, where that is the repair.
    """

    words: str
    repair: str = ""
    mask: np.ndarray | None = None
    other: str = ""


def judge(
    name: str,
    mask: np.ndarray,
    box: Slices,
    shape: tuple[int, ...],
    voxel_ml: float,
    middle: float | None,
) -> list[Finding]:
    """Look at an object.

    Args:
        name: of the object.
        mask: its voxels in a box, along S-I, A-P and R-L.
        box: where that lies.
        shape: of the scan.
        voxel_ml: volume of a voxel.
        middle: where the middle of the body lies along R-L, None if that is not known.
    """
    if not mask.any():
        return []
    found = []
    pieces, count = ndimage.label(mask)
    if count > 1:
        sizes = np.bincount(pieces.ravel())[1:]
        largest = int(sizes.argmax()) + 1
        rest = (int(sizes.sum()) - int(sizes[largest - 1])) * voxel_ml
        words = f"{count} pieces, {_ml(rest)} beside the largest"
        found.append(Finding(words, "Keep the largest piece", mask=pieces == largest))
    ends = [side for axis in range(3) for side in _touched(mask, box, shape, axis)]
    if ends:
        found.append(Finding(f"cut off by the scan's edge ({', '.join(ends)})"))
    side = next((one for one in _SIDES if one in name.lower().split("_")), None)
    if side is not None and middle is not None:
        centre = float(ndimage.center_of_mass(mask)[2]) + box[2].start
        # the third axis runs from the patient's right to the left
        if (centre < middle) == (side == "left") and abs(centre - middle) > 1:
            pieces_of_name = name.split("_")
            pieces_of_name[[one.lower() for one in pieces_of_name].index(side)] = _SIDES[side]
            other = "_".join(pieces_of_name)
            text = f"on the patient's {_SIDES[side]}, but called {side}"
            found.append(Finding(text, f"Swap with {other.replace('_', ' ')}", other=other))
    return found


def middle_of_body(plane: np.ndarray) -> float | None:
    """Find the middle of the body along R-L.

    Args:
        plane: a slice of the scan, (A-P, R-L).
    """
    inside = ndimage.binary_opening(tissue(plane), iterations=2)
    columns = np.flatnonzero(inside.any(axis=0))
    return (columns[0] + columns[-1]) / 2 if len(columns) else None


def tissue(plane: np.ndarray, share: float = 0.15) -> np.ndarray:
    """Tell what of a slice of the scan is no air: (rows, columns) booleans.

    Args:
        plane: the slice.
        share: of the way from its darkest to its brightest values, up to which it is air.
    """
    values = np.asarray(plane, float)
    low, high = np.percentile(values[np.isfinite(values)], [0.5, 99.5])
    return np.asarray(values > low + share * (high - low))


def outside_body(plane: np.ndarray, at: tuple[int, int], modality: str | None = None) -> bool:
    """Whether a place on a slice is air that reaches the picture's edge.

    Args:
        plane: a slice of the scan, (rows, columns).
        at: row and column.
        modality: of the scan; in PET tissue may take up as little as air, so no place is air there.
    """
    if modality == "PT":
        return False
    # the scan may be cut at -125 HU, where fat is nearly air, and the skin a line with gaps
    dark = np.pad(~tissue(plane, 0.05), 2, mode="edge")
    air, _ = ndimage.label(ndimage.binary_opening(dark, iterations=2)[2:-2, 2:-2])
    number = int(air[at])
    if not number:
        return False
    edge = np.concatenate([air[0], air[-1], air[:, 0], air[:, -1]])
    return bool((edge == number).any())


def _touched(mask: np.ndarray, box: Slices, shape: tuple[int, ...], axis: int) -> list[str]:
    names = (("top", "bottom"), ("front", "back"), ("right", "left"))[axis]
    ends = []
    if box[axis].start == 0 and np.take(mask, 0, axis).any():
        ends.append(names[0])
    if box[axis].stop == shape[axis] and np.take(mask, -1, axis).any():
        ends.append(names[1])
    return ends


def _ml(value: float) -> str:
    return f"{value:.1f} mL" if value >= 0.05 else f"{value * 1000:.0f} mm³"
