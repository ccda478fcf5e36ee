"""Baselines against formulas written out: block DCT of scipy and of its definition, area means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import fft

from spad.evaluation.baselines import dct_largest, dct_lowest, lowest_frequencies, trilinear


def image_of(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape).astype(np.float32)


def by_scipy(block: np.ndarray, kept: list[tuple[int, ...]]) -> np.ndarray:
    found = fft.dctn(block.astype(float), type=2, norm="ortho")
    only = np.zeros_like(found)
    for place in kept:
        only[place] = found[place]
    return np.clip(fft.idctn(only, type=2, norm="ortho"), 0, 1)


def by_definition(block: np.ndarray, place: tuple[int, ...]) -> np.ndarray:
    """The part of a block that lies along one orthonormal cosine."""
    wave = np.ones(())
    for n, k in zip(block.shape, place, strict=True):
        line = np.cos(np.pi * (np.arange(n) + 0.5) * k / n) * np.sqrt((2 - (k == 0)) / n)
        wave = np.multiply.outer(wave, line)
    return (block * wave).sum() * wave


def in_order(shape: tuple[int, ...]) -> list[tuple[int, ...]]:
    return sorted(np.ndindex(*shape), key=lambda place: (sum(k * k for k in place), place))


class TestLowest:
    @pytest.mark.parametrize("block", [(4, 6, 8), (1, 8, 8), (8, 4, 4)])
    def test_one_block(self, block: tuple[int, int, int]) -> None:
        image = image_of(block)
        kept = in_order(block)[:16]
        assert np.allclose(dct_lowest(image, block), by_scipy(image, kept), atol=1e-5)
        summed = sum(by_definition(image.astype(float), place) for place in kept)
        assert np.allclose(dct_lowest(image, block), np.clip(summed, 0, 1), atol=1e-5)

    def test_order_of_frequencies(self) -> None:
        places = np.unravel_index(lowest_frequencies((2, 3, 3))[:8], (2, 3, 3))
        assert list(zip(*map(list, places), strict=True)) == in_order((2, 3, 3))[:8]
        assert in_order((2, 3, 3))[1:4] == [(0, 0, 1), (0, 1, 0), (1, 0, 0)]

    def test_every_block_by_itself_and_the_far_end_padded(self) -> None:
        image, factors = image_of((5, 9, 14)), (2, 4, 4)
        found = dct_lowest(image, factors)
        assert found.shape == image.shape
        kept = in_order(factors)[:16]
        padded = np.pad(image, [(0, 1), (0, 3), (0, 2)], mode="edge")
        for z, y, x in np.ndindex(3, 3, 4):
            part = tuple(slice(a * n, (a + 1) * n) for a, n in zip((z, y, x), factors, strict=True))
            wanted = by_scipy(padded[part], kept)
            here = found[part]
            assert np.allclose(here, wanted[tuple(map(slice, here.shape))], atol=1e-5)

    def test_sixteen_numbers_whatever_the_colours(self) -> None:
        image = image_of((3, 1, 8, 8))
        kept = in_order((3, 1, 8, 8))[:16]
        assert np.allclose(dct_lowest(image, (1, 8, 8)), by_scipy(image, kept), atol=1e-5)

    def test_a_block_of_sixteen_voxels_is_kept_whole(self) -> None:
        image = image_of((4, 8, 4))
        assert np.allclose(dct_lowest(image, (1, 4, 4)), image, atol=1e-5)


class TestLargest:
    def test_one_block(self) -> None:
        image = image_of((4, 8, 8))
        found = fft.dctn(image.astype(float), norm="ortho")
        flat = np.argsort(-np.abs(found).ravel())[:16]
        kept = list(zip(*map(list, np.unravel_index(flat, found.shape)), strict=True))
        assert np.allclose(dct_largest(image, (4, 8, 8)), by_scipy(image, kept), atol=1e-5)

    def test_never_farther_off_than_the_lowest(self) -> None:
        image, factors = np.clip(image_of((8, 32, 32)) * 0.2 + 0.4, 0, 1), (4, 16, 16)
        errors = [((f(image, factors) - image) ** 2).mean() for f in (dct_lowest, dct_largest)]
        assert errors[1] < errors[0]

    def test_a_constant_stays(self) -> None:
        image = np.full((3, 20, 20), 0.3, np.float32)
        assert np.allclose(dct_largest(image, (2, 16, 16)), image, atol=1e-6)


class TestTrilinear:
    def test_means_interpolated_between_their_middles(self) -> None:
        image = image_of((2, 4, 8))
        found = trilinear(image, (1, 1, 2))
        left, right = image[..., :4].mean(), image[..., 4:].mean()
        share = np.clip((np.arange(8) - 1.5) / 4, 0, 1)
        assert np.allclose(found, left + share * (right - left), atol=1e-6)

    def test_each_colour_by_itself(self) -> None:
        image = image_of((3, 1, 8, 8))
        found = trilinear(image, (1, 2, 2))
        assert np.allclose(found[1], trilinear(image[1], (1, 2, 2)))
