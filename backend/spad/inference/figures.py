"""How alike two images are: PSNR, structural similarity and mean absolute difference.

PSNR and SSIM expect images in [0, 1] (the unit range of an intensity contract): their data range
is 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from spad.errors import SpadError
from spad.inference.stages import share
from spad.progress import Progress, silent

WINDOW = 11
SIGMA = 1.5
C1 = 0.01**2
C2 = 0.03**2
THREADS = 4
"""Slabs of an image that are compared at a time, at most: the filters leave Python's lock."""

Image = NDArray[np.floating]


def l1(image: Image, reference: Image) -> float:
    """Mean absolute difference, in the unit of the images.

    Raises:
        SpadError: if the images differ in shape or are empty.
    """
    _check(image, reference)
    return float(np.mean(np.abs(np.subtract(image, reference, dtype=np.float32)), dtype=np.float64))


def psnr(image: Image, reference: Image) -> float:
    """Peak signal-to-noise ratio in dB of images in [0, 1]; infinite where they are equal.

    Raises:
        SpadError: if the images differ in shape or are empty.
    """
    _check(image, reference)
    difference = np.subtract(image, reference, dtype=np.float32)
    mean_square = float(np.mean(np.square(difference), dtype=np.float64))
    return float("inf") if mean_square == 0 else -10.0 * float(np.log10(mean_square))


def ssim(image: Image, reference: Image, slab: int = 16, progress: Progress = silent) -> float:
    """Mean structural similarity of images in [0, 1], in two or three dimensions.

    The window is a Gaussian of sigma 1.5 voxels over 11 voxels per axis; on an axis with fewer
    voxels it is clipped to the largest odd number that fits. Only windows inside the image count,
    as in Wang et al. 2004 and in scikit-image with ``gaussian_weights=True``.

    Args:
        image: the image, any spatial shape.
        reference: the image to compare with, the same shape.
        slab: how many positions of the first axis are worked on at a time (bounds the memory).
        progress: told at every slab; may raise `Cancelled`.

    Raises:
        SpadError: if the images differ in shape or are empty.
    """
    _check(image, reference)
    radii = [(min(WINDOW, size) - 1) // 2 for size in image.shape]
    windows = image.shape[0] - 2 * radii[0]

    def part_of(start: int) -> tuple[float, int]:
        part = slice(start, min(start + slab, windows) + 2 * radii[0])
        similarity = _similarity(
            np.asarray(image[part], dtype=np.float32),
            np.asarray(reference[part], dtype=np.float32),
            radii,
        )
        return float(similarity.sum(dtype=np.float64)), similarity.size

    starts = range(0, windows, slab)
    total, count = 0.0, 0
    pool = ThreadPoolExecutor(min(THREADS, os.cpu_count() or 1))
    try:
        for start, found in zip(starts, pool.map(part_of, starts), strict=True):
            progress(start / windows, "Comparing")
            total += found[0]
            count += found[1]
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return total / count


def image_figures(
    image: Image, reference: Image, progress: Progress = silent
) -> dict[str, float | None]:
    """Compare two images in [0, 1].

    Args:
        image: the image, two or three spatial axes, before three of them perhaps its colours.
        reference: the image to compare with, the same shape.
        progress: told now and then; may raise `Cancelled`.

    Returns:
        `psnr` (None where they are equal), `ssim` (the mean over colours) and `l1`.

    Raises:
        SpadError: if the images differ in shape or are empty.
    """
    _check(image, reference)
    ratio = psnr(image, reference)
    colours = len(image) if image.ndim > 3 else 1
    pairs = zip(image, reference, strict=True) if image.ndim > 3 else [(image, reference)]
    alike = [
        ssim(one, other, progress=share(progress, n / colours, (n + 1) / colours))
        for n, (one, other) in enumerate(pairs)
    ]
    return {
        "psnr": ratio if np.isfinite(ratio) else None,
        "ssim": float(np.mean(alike)),
        "l1": l1(image, reference),
    }


def _similarity(a: NDArray[np.float32], b: NDArray[np.float32], radii: Sequence[int]) -> Image:
    """SSIM at every window that lies inside the image."""
    inside = tuple(
        slice(radius, size - radius) for radius, size in zip(radii, a.shape, strict=True)
    )

    def blur(x: NDArray[np.float32]) -> NDArray[np.float32]:
        return ndimage.gaussian_filter(x, SIGMA, radius=list(radii))[inside]

    mean_a, mean_b = blur(a), blur(b)
    variance_a = blur(a * a) - mean_a**2
    variance_b = blur(b * b) - mean_b**2
    covariance = blur(a * b) - mean_a * mean_b
    luminance = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
    structure = (2 * covariance + C2) / (variance_a + variance_b + C2)
    return luminance * structure


def _check(image: Image, reference: Image) -> None:
    if image.shape != reference.shape:
        raise SpadError(
            f"The images have the shapes {image.shape} and {reference.shape}; "
            "only images of one grid can be compared: bring both onto the same grid."
        )
    if image.size == 0:
        raise SpadError("The images hold no voxels; give images with at least one voxel.")
