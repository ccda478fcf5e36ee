"""What a scan looks like through as few plain numbers as there are tokens, without any model.

`trilinear` keeps the mean of each token's voxels; `dct_lowest` and `dct_largest` keep 16 numbers
per token of a block DCT (type II, orthonormal) over its voxels, as JPEG does over 8 x 8 pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.fft import dctn, idctn

from spad.models.resize import resize

KEPT = 16
"""Coefficients per token."""

Image = NDArray[np.float32]


def trilinear(image: Image, grid: Sequence[int]) -> Image:
    """Shrink an image to the token grid by area means and enlarge it linearly.

    Args:
        image: (D, H, W), or (C, D, H, W) in colours.
        grid: tokens along depth, height and width.
    """
    whole = torch.from_numpy(np.ascontiguousarray(image)).reshape(1, -1, *image.shape[-3:])
    again = resize(resize(whole, grid), image.shape[-3:])
    return np.asarray(again.numpy().reshape(image.shape))


def dct_lowest(image: Image, factors: Sequence[int], kept: int = KEPT) -> Image:
    """Keep, of each token's block DCT, the coefficients of lowest frequency.

    Frequencies are ordered by the sum over axes of the squared number of half waves in a block;
    of equal ones the first in C order goes first. Blocks at the far end repeat the last voxel.

    Args:
        image: (D, H, W) in [0, 1], or (C, D, H, W): a block then reaches through all colours.
        factors: voxels in a token along depth, height and width.
        kept: coefficients per block.

    Returns:
        The image from these coefficients alone, clipped to [0, 1].
    """
    block = (*image.shape[:-3], *factors)
    low = np.zeros(int(np.prod(block)), bool)
    low[lowest_frequencies(block)[:kept]] = True

    def keep(coefficients: Image) -> Image:
        return np.where(low, coefficients, np.float32(0))

    return _through_dct(image, factors, keep)


def dct_largest(image: Image, factors: Sequence[int], kept: int = KEPT) -> Image:
    """Keep, of each token's block DCT, the coefficients of largest magnitude.

    Stronger than `dct_lowest`, since which ones were kept is not counted. Arguments as there.
    """

    def keep(coefficients: Image) -> Image:
        if coefficients.shape[1] <= kept:
            return coefficients
        size = np.abs(coefficients)
        least = np.partition(size, -kept, axis=1)[:, -kept, None]
        return np.where(size >= least, coefficients, np.float32(0))

    return _through_dct(image, factors, keep)


@cache
def lowest_frequencies(block: tuple[int, ...]) -> NDArray[np.intp]:
    """Give the places of a block's coefficients (C order), lowest frequency first."""
    waves = np.indices(block).reshape(len(block), -1)
    return np.argsort((waves**2).sum(axis=0), kind="stable")


def _through_dct(image: Image, factors: Sequence[int], keep: Callable[[Image], Image]) -> Image:
    """Transform, choose and transform back, one layer of tokens at a time.

    Args:
        image: (..., D, H, W).
        factors: voxels in a token.
        keep: gets (tokens, coefficients) and gives them with the unwanted ones 0.
    """
    result = np.empty(image.shape, np.float32)
    depth = int(factors[0])
    for start in range(0, image.shape[-3], depth):
        layer = image[..., start : start + depth, :, :]
        blocks, shape = _blocks(layer, factors)
        axes = tuple(range(1, blocks.ndim))
        found = dctn(blocks, axes=axes, norm="ortho")
        chosen = keep(found.reshape(len(found), -1)).reshape(found.shape)
        again = _unblocked(idctn(chosen, axes=axes, norm="ortho"), shape)
        result[..., start : start + depth, :, :] = again[tuple(slice(n) for n in layer.shape)]
    return np.clip(result, 0, 1, out=result)


def _blocks(layer: Image, factors: Sequence[int]) -> tuple[Image, tuple[int, ...]]:
    """Cut a layer into its tokens: (rows * columns, ..., fz, fy, fx), and its padded shape."""
    leading = layer.shape[:-3]
    missing = [-n % f for n, f in zip(layer.shape[-3:], factors, strict=True)]
    padded = np.pad(layer, [(0, 0)] * len(leading) + [(0, n) for n in missing], mode="edge")
    depth, height, width = factors
    rows, columns = padded.shape[-2] // height, padded.shape[-1] // width
    parts = padded.reshape(*leading, depth, rows, height, columns, width)
    blocks = np.moveaxis(parts, (-4, -2), (0, 1)).reshape(-1, *leading, depth, height, width)
    return np.asarray(blocks, np.float32), padded.shape


def _unblocked(blocks: Image, shape: tuple[int, ...]) -> Image:
    """Lay the blocks of a layer side by side again."""
    height, width = blocks.shape[-2:]
    parts = blocks.reshape(shape[-2] // height, shape[-1] // width, *blocks.shape[1:])
    return np.moveaxis(parts, (0, 1), (-4, -2)).reshape(shape)
