"""A labelled scan with what a segmenter knows of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from spad.data.cohort import Prepared


@dataclass(frozen=True, eq=False)
class KnownScan:
    """See the module.

    Attributes:
        scan: the scan on its own grid, with labels.
        maps: (C, d, h, w) features, as `spad.inference.features.Features.maps`.
        organs: (K, D, H, W) uint8, probabilities of classes in 1/255, background first.
        place: class of each label of the cohort in `organs`.
        boxes: for each label that occurs, its first voxel and the one behind its last, (2, 3).
    """

    scan: Prepared
    maps: torch.Tensor
    organs: torch.Tensor
    place: dict[int, int]
    boxes: dict[int, np.ndarray]
