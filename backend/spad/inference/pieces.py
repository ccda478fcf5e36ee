"""Rules for organs that have no small pieces, or no holes; applied to the labels."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import numpy as np
from scipy import ndimage


def drop_small_pieces(
    labels: np.ndarray, least_piece: Mapping[int, float], confidence: np.ndarray | None = None
) -> None:
    """Give an organ's pieces that are small beside its largest to the background, in place.

    Args:
        labels: (D, H, W).
        least_piece: label to the share of its largest piece that a piece must have to be kept; at
            1 the largest alone is.
        confidence: of the labels; becomes 0 where a label is changed.
    """
    for label, box, inside in _boxes(labels, least_piece):
        pieces, count = ndimage.label(inside)
        if count < 2:
            continue
        share, sizes = least_piece[label], np.bincount(pieces.reshape(-1))[1:]
        small = sizes < share * sizes.max()
        if share >= 1:  # of two as large, one
            small = np.arange(count) != sizes.argmax()
        _change(labels[box], np.append(False, small)[pieces], 0, confidence, box)


def fill_holes(
    labels: np.ndarray, filled: Collection[int], confidence: np.ndarray | None = None
) -> None:
    """Give background that an organ encloses to the organ, in place.

    Args:
        labels: (D, H, W).
        filled: labels that have no holes.
        confidence: of the labels; becomes 0 where a label is changed.
    """
    for label, box, inside in _boxes(labels, filled):
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


def _boxes(
    labels: np.ndarray, wanted: Collection[int]
) -> Iterator[tuple[int, tuple[slice, ...], np.ndarray]]:
    """Each wanted label that occurs, the box around it, and where in that it is."""
    wanted = sorted(set(wanted))
    if not wanted:
        return
    found = ndimage.find_objects(labels, max_label=wanted[-1])
    for label in wanted:
        box = found[label - 1]
        if box is not None:
            yield label, box, labels[box] == label


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
