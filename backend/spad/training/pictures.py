"""Pictures of a run as it learns: what goes in and what comes out, one row per sample."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from spad.volumes.colors import organ_color

ROWS = 3
"""At most so many samples of a batch are shown."""
_OPACITY = 0.55
_GAP = 2


def middle(volumes: torch.Tensor) -> list[np.ndarray]:
    """Give the middle slices of the first samples.

    Args:
        volumes: (B, D, H, W).

    Returns:
        (H, W) arrays, at most `ROWS`.
    """
    shown = volumes[:ROWS, volumes.shape[1] // 2]
    return list(shown.detach().float().cpu().numpy())


def gray(values: np.ndarray) -> np.ndarray:
    """Draw values from 0 to 1 as (H, W, 3) uint8."""
    levels = np.round(255 * np.clip(np.nan_to_num(values), 0, 1)).astype(np.uint8)
    return np.repeat(levels[..., None], 3, axis=-1)


def overlaid(picture: np.ndarray, labels: np.ndarray, names: dict[int, str]) -> np.ndarray:
    """Draw labels over a picture in the colours that they have in the viewer."""
    drawn = picture.astype(np.float32)
    for label, name in names.items():
        where = labels == label
        color = 255 * np.array(organ_color(name)[:3], np.float32)
        drawn[where] = (1 - _OPACITY) * drawn[where] + _OPACITY * color
    return np.round(drawn).astype(np.uint8)


def sheet(columns: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    """Lay pictures out: a column for each kind, a row for each sample; (H, W, 3) uint8."""
    rows = []
    for pictures in zip(*columns, strict=True):
        gap = np.zeros((pictures[0].shape[0], _GAP, 3), np.uint8)
        parts = [part for picture in pictures for part in (gap, picture)][1:]
        rows += [np.concatenate(parts, axis=1)]
    gap = np.zeros((_GAP, rows[0].shape[1], 3), np.uint8)
    return np.concatenate([part for row in rows for part in (gap, row)][1:], axis=0)
