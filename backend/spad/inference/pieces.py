"""Organs that are one piece: what lies apart from the largest one is taken back."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch
from scipy import ndimage

MARGIN = 2
"""Voxels about the largest piece in which probabilities stay, so that its border does."""


def keep_largest(
    probabilities: torch.Tensor, ids: Sequence[int], one_piece: Collection[int]
) -> None:
    """Give what is far from an organ's largest piece back to the background, in place.

    Args:
        probabilities: (labels, D, H, W), background first.
        ids: the label of each row.
        one_piece: labels that are one piece.
    """
    marks = probabilities.argmax(0).numpy()
    for row, label in enumerate(ids):
        if row == 0 or label not in one_piece:
            continue
        pieces, count = ndimage.label(marks == row)
        if count < 2:
            continue
        sizes = ndimage.sum_labels(marks == row, pieces, range(1, count + 1))
        largest = pieces == 1 + int(sizes.argmax())
        apart = torch.from_numpy(~ndimage.binary_dilation(largest, iterations=MARGIN))
        probabilities[0] += probabilities[row] * apart
        probabilities[row].masked_fill_(apart, 0.0)
