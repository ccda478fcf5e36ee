"""Random changes to a crop, each drawn from the generator that is handed in.

Source of kinds and ranges: PUMIT, arXiv 2312.07630, sections "pre-training" and "segmentation".
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F


def random_matrix(
    rng: np.random.Generator, zoom: tuple[float, float], rotation: float, flips: bool
) -> np.ndarray:
    """Draw the linear map from offsets in the crop to offsets in the scan, in voxels.

    Args:
        rng: the source of randomness.
        zoom: smallest and largest scale; 2 takes every second voxel. The same for all axes, so `da`
            stays.
        rotation: largest angle about depth, degrees.
        flips: mirror each axis with probability one half.

    Returns:
        (3, 3) for (z, y, x).
    """
    scale = math.exp(rng.uniform(math.log(zoom[0]), math.log(zoom[1])))
    angle = math.radians(rng.uniform(-rotation, rotation))
    signs = rng.choice([-1.0, 1.0], size=3) if flips else np.ones(3)
    turn = np.array(
        [[1, 0, 0], [0, math.cos(angle), -math.sin(angle)], [0, math.sin(angle), math.cos(angle)]]
    )
    return scale * turn * signs


def resample_crop(
    array: torch.Tensor,
    centre: np.ndarray,
    size: tuple[int, ...],
    matrix: np.ndarray,
    mode: str = "bilinear",
) -> torch.Tensor:
    """Take a crop through a linear map, in one resampling.

    Args:
        array: (D, H, W).
        centre: (z, y, x) voxel at which the crop's middle lies.
        size: (d, h, w) of the crop.
        matrix: (3, 3), see `random_matrix`.
        mode: "bilinear" for scans, "nearest" for labels.

    Returns:
        (d, h, w) float32; beyond the scan its last voxels are repeated.
    """
    half = np.abs(matrix) @ (np.array(size) / 2) + 1
    shape = np.array(array.shape)
    low = np.clip(np.floor(centre - half).astype(int), 0, shape - 1)
    high = np.clip(np.ceil(centre + half).astype(int) + 1, low + 1, shape)
    region = array[tuple(slice(a, b) for a, b in zip(low, high, strict=True))].float()
    length = np.array(region.shape)
    # affine_grid counts from -1 to 1 over the voxels' outer edges, in the order x, y, z
    to_unit = np.diag(2.0 / length) @ matrix @ np.diag(np.array(size) / 2.0)
    offset = (2 * (centre - low) + 1) / length - 1
    theta = np.concatenate([to_unit[::-1, ::-1], offset[::-1, None]], axis=1)
    grid = F.affine_grid(
        torch.from_numpy(theta.astype(np.float32))[None], [1, 1, *size], align_corners=False
    )
    return F.grid_sample(
        region[None, None], grid, mode=mode, padding_mode="border", align_corners=False
    )[0, 0]


def random_intensity(image: torch.Tensor, rng: np.random.Generator, noise: bool) -> torch.Tensor:
    """Scale, contrast, gamma and, where asked, noise, each with its own probability.

    Args:
        image: values in [0, 1], any shape.
        rng: the source of randomness.
        noise: also add Gaussian noise now and then (not for tokenizers, which would have to
            reproduce it).

    Returns:
        Values in [0, 1].
    """
    if rng.random() < 0.15:
        image = image * rng.uniform(0.75, 1.25)
    if rng.random() < 0.15:
        mean = image.mean()
        image = (image - mean) * rng.uniform(0.75, 1.25) + mean
    image = image.clamp(0, 1)
    if rng.random() < 0.3:
        gamma = rng.uniform(0.7, 1.5)
        image = 1 - (1 - image) ** gamma if rng.random() < 0.5 else image**gamma
    if noise and rng.random() < 0.1:
        values = rng.standard_normal(tuple(image.shape), dtype=np.float32)
        image = (image + rng.uniform(0, 0.1) * torch.from_numpy(values)).clamp(0, 1)
    return image
