"""Random changes to a crop, each drawn from the generator that is handed in.

Source of kinds and ranges: PUMIT, arXiv 2312.07630, sections "pre-training" and "segmentation".
"""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F

from spad.data.cohort import Voxels


def random_matrix(
    rng: np.random.Generator,
    scale: tuple[float, float],
    rotation: float,
    tilt: float,
    flips: bool,
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> np.ndarray:
    """Draw the linear map from offsets in the crop to offsets in the scan, in voxels.

    Args:
        rng: the source of randomness.
        scale: of depth and of the plane; 2 takes every second voxel.
        rotation: largest angle about depth, degrees.
        tilt: largest angle about each in-plane axis, degrees.
        flips: mirror each axis with probability one half.
        spacing: of the scan, (z, y, x) in mm; rotations are of space, not of voxels.

    Returns:
        (3, 3) for (z, y, x).
    """
    turn = _rotation(math.radians(rng.uniform(-rotation, rotation)), 1, 2)
    for axes in ((0, 1), (0, 2)) if tilt else ():
        turn = turn @ _rotation(math.radians(rng.uniform(-tilt, tilt)), *axes)
    signs = rng.choice([-1.0, 1.0], size=3) if flips else np.ones(3)
    mm = np.array(spacing)
    return turn * mm / mm[:, None] * np.array([scale[0], scale[1], scale[1]]) * signs


def _rotation(angle: float, first: int, second: int) -> np.ndarray:
    matrix = np.eye(3)
    matrix[first, first] = matrix[second, second] = math.cos(angle)
    matrix[first, second], matrix[second, first] = -math.sin(angle), math.sin(angle)
    return matrix


def resample_crop(
    array: torch.Tensor | Voxels,
    centre: np.ndarray,
    size: tuple[int, ...],
    matrix: np.ndarray,
    mode: str = "bilinear",
    beyond: str = "border",
) -> torch.Tensor:
    """Take a crop through a linear map, in one resampling, on the array's device.

    Args:
        array: (D, H, W), or (C, D, H, W) as a tensor or in a store; only the part that the crop
            needs is read.
        centre: (z, y, x) voxel at which the crop's middle lies.
        size: (d, h, w) of the crop.
        matrix: (3, 3), see `random_matrix`.
        mode: "bilinear" for scans, "nearest" for labels.
        beyond: what lies beyond the scan: its last voxels ("border") or its mirror image
            ("reflection").

    Returns:
        (d, h, w) or (C, d, h, w) float32.
    """
    half = np.abs(matrix) @ (np.array(size) / 2) + 1
    shape = np.array(array.shape[-3:])
    low = np.clip(np.floor(centre - half).astype(int), 0, shape - 1)
    high = np.clip(np.ceil(centre + half).astype(int) + 1, low + 1, shape)
    box = tuple(slice(a, b) for a, b in zip(low.tolist(), high.tolist(), strict=True))
    region = array[(slice(None), *box) if len(array.shape) == 4 else box].float()
    length = np.array(region.shape[-3:])
    # affine_grid counts from -1 to 1 over the voxels' outer edges, in the order x, y, z
    to_unit = np.diag(2.0 / length) @ matrix @ np.diag(np.array(size) / 2.0)
    offset = (2 * (centre - low) + 1) / length - 1
    theta = np.concatenate([to_unit[::-1, ::-1], offset[::-1, None]], axis=1)
    where = torch.from_numpy(theta.astype(np.float32)).to(region.device, non_blocking=True)
    grid = F.affine_grid(where[None], [1, 1, *size], align_corners=False)
    channels = region.reshape(1, -1, *region.shape[-3:])
    crop = F.grid_sample(channels, grid, mode=mode, padding_mode=beyond, align_corners=False)
    return crop.reshape(*region.shape[:-3], *size)


def random_intensity(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Scale, contrast and gamma, each with its own probability; for tasks that rebuild the scan.

    Args:
        image: values in [0, 1], any shape.
        rng: the source of randomness.

    Returns:
        Values in [0, 1].
    """
    image = _scaled(image, rng)
    if rng.random() < 0.3:
        image = _gamma(image, rng, inverted=rng.random() < 0.5)
    return image


def random_quality(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Noise, blur, scale, contrast, lower resolution and gamma; for segmentation.

    Noise and blur with probability 0.1 each, scale, contrast and resolution with 0.15, gamma of the
    image with 3/13 and of its negative with 1/13.

    Args:
        image: (C, D, H, W) in [0, 1].
        rng: the source of randomness.

    Returns:
        Values in [0, 1].
    """
    if rng.random() < 0.1:
        generator = torch.Generator(image.device).manual_seed(int(rng.integers(2**62)))
        noise = torch.randn(image.shape, generator=generator, device=image.device)
        image = image + rng.uniform(0, 0.1) * noise
    if rng.random() < 0.1:
        image = _blurred(image, rng.uniform(0.8, 1.2))
    image = _scaled(image, rng)
    if rng.random() < 0.15:
        image = _coarser_plane(image, rng.uniform(0.5, 1))
    drawn = rng.random() * 13
    if drawn < 4:
        image = _gamma(image, rng, inverted=drawn < 1)
    return image


def _scaled(image: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    if rng.random() < 0.15:
        image = image * rng.uniform(0.75, 1.25)
    if rng.random() < 0.15:
        mean = image.mean()
        image = (image - mean) * rng.uniform(0.75, 1.25) + mean
    return image.clamp(0, 1)


def _gamma(image: torch.Tensor, rng: np.random.Generator, inverted: bool) -> torch.Tensor:
    gamma = rng.uniform(0.7, 1.5)
    return 1 - (1 - image) ** gamma if inverted else image**gamma


def _blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Smooth every axis by a Gaussian of `sigma` voxels; a single slice in its plane alone."""
    reach = torch.arange(-3, 4, device=image.device, dtype=torch.float32)
    kernel = torch.exp(-0.5 * (reach / sigma) ** 2)
    kernel /= kernel.sum()
    x = image[:, None]
    for axis in range(3):
        if image.shape[axis + 1] > 1:
            shape, padding = [1, 1, 1, 1, 1], [0] * 6
            shape[axis + 2] = 7
            padding[4 - 2 * axis] = padding[5 - 2 * axis] = 3
            x = F.conv3d(F.pad(x, padding, mode="replicate"), kernel.view(shape))
    return x[:, 0]


def _coarser_plane(image: torch.Tensor, share: float) -> torch.Tensor:
    """Bring every slice to a share of its resolution and back."""
    depth, height, width = image.shape[-3:]
    size = (depth, max(1, round(height * share)), max(1, round(width * share)))
    small = F.interpolate(image[None], size=size, mode="nearest-exact")
    back = F.interpolate(small, size=(depth, height, width), mode="trilinear", align_corners=False)
    return back[0].clamp(0, 1)
