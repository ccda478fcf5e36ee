"""Rules for organs that are one piece, or have no holes; applied to the labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import numpy as np
from scipy import ndimage

Change = tuple[tuple[slice, ...], np.ndarray]


def keep_largest(
    labels: np.ndarray, one_piece: Collection[int], confidence: np.ndarray | None = None
) -> None:
    """Give what is apart from an organ's largest piece to the background, in place.

    Args:
        labels: (D, H, W).
        one_piece: labels that are one piece.
        confidence: of the labels; becomes 0 where a label is changed.
    """
    for box, inside in _boxes(labels, one_piece):
        pieces, count = ndimage.label(inside)
        if count < 2:
            continue
        largest = 1 + int(np.bincount(pieces.reshape(-1))[1:].argmax())
        _change(labels[box], inside & (pieces != largest), 0, confidence, box)


def fill_holes(
    labels: np.ndarray, filled: Collection[int], confidence: np.ndarray | None = None
) -> None:
    """Give background that an organ encloses to the organ, in place; arguments as `keep_largest`.

    Args:
        labels: (D, H, W).
        filled: labels that have no holes.
        confidence: of the labels; becomes 0 where a label is changed.
    """
    for box, inside in _boxes(labels, filled):
        label = labels[box][inside][0]
        gaps, count = ndimage.label(~inside)
        if not count:
            continue
        faces = [gaps.take(end, axis) for axis in range(3) for end in (0, -1)]
        outside = np.zeros(count + 1, bool)
        outside[0] = True
        for face in faces:
            outside[face] = True
        hole = ~outside[gaps] & (labels[box] == 0)
        _change(labels[box], hole, label, confidence, box)


def _boxes(labels: np.ndarray, wanted: Collection[int]) -> Iterator[Change]:
    """The box around each wanted label that occurs, and where in it that label is."""
    wanted = sorted(set(wanted))
    if not wanted:
        return
    found = ndimage.find_objects(labels, max_label=wanted[-1])
    for label in wanted:
        box = found[label - 1]
        if box is not None:
            yield box, labels[box] == label


def _change(
    part: np.ndarray,
    where: np.ndarray,
    label: int,
    confidence: np.ndarray | None,
    box: tuple[slice, ...],
) -> None:
    part[where] = label
    if confidence is not None:
        confidence[box][where] = 0
