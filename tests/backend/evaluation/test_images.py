"""Image figures against scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from spad.errors import SpadError
from spad.evaluation.images import l1, psnr, ssim


def pair(shape: tuple[int, ...], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A smooth image in [0, 1] and a noisy copy."""
    rng = np.random.default_rng(seed)
    image = gaussian_filter(rng.random(shape), 2)
    image = (image - image.min()) / (image.max() - image.min())
    noisy = np.clip(image + rng.normal(scale=0.1, size=shape), 0, 1)
    return image.astype(np.float32), noisy.astype(np.float32)


def by_skimage(a: np.ndarray, b: np.ndarray, window: int = 11) -> float:
    return structural_similarity(
        a.astype(float),
        b.astype(float),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        win_size=window,
        data_range=1,
    )


class TestSsim:
    @pytest.mark.parametrize("shape", [(11, 12, 13), (40, 20, 24), (30, 40), (70, 15, 15)])
    def test_equals_skimage(self, shape: tuple[int, ...]) -> None:
        a, b = pair(shape)
        assert ssim(a, b) == pytest.approx(by_skimage(a, b), abs=1e-5)

    def test_slabs_change_nothing(self) -> None:
        a, b = pair((50, 14, 15))
        assert ssim(a, b, slab=3) == pytest.approx(ssim(a, b, slab=1000), abs=1e-6)

    def test_single_slice_is_the_image_in_two_dimensions(self) -> None:
        a, b = pair((1, 40, 30))
        assert ssim(a, b) == pytest.approx(by_skimage(a[0], b[0]), abs=1e-5)

    @pytest.mark.parametrize("depth", [2, 5, 10])
    def test_thin_volumes(self, depth: int) -> None:
        a, b = pair((depth, 30, 30))
        assert 0 < ssim(a, b) < 1
        assert ssim(a, a) == pytest.approx(1)

    def test_window_is_clipped_on_the_thin_axis_only(self) -> None:
        a, b = pair((5, 5, 5))
        c1, c2, weight = 0.01**2, 0.03**2, np.exp(-0.5 * (np.arange(-2, 3) / 1.5) ** 2)
        weight /= weight.sum()
        window = np.einsum("i,j,k->ijk", weight, weight, weight)
        x, y = a.astype(float), b.astype(float)
        mx, my = (window * x).sum(), (window * y).sum()
        vx, vy = (window * x * x).sum() - mx**2, (window * y * y).sum() - my**2
        cov = (window * x * y).sum() - mx * my
        luminance = (2 * mx * my + c1) / (mx**2 + my**2 + c1)
        by_hand = luminance * (2 * cov + c2) / (vx + vy + c2)
        assert ssim(a, b) == pytest.approx(by_hand, abs=1e-5)


class TestPsnrAndL1:
    def test_psnr_equals_skimage(self) -> None:
        a, b = pair((9, 20, 21))
        assert psnr(a, b) == pytest.approx(peak_signal_noise_ratio(b, a, data_range=1), abs=1e-4)

    def test_equal_images(self) -> None:
        a, _ = pair((4, 5, 6))
        assert psnr(a, a) == float("inf")
        assert l1(a, a) == 0

    def test_l1_of_unsigned_integers_does_not_wrap(self) -> None:
        assert l1(np.array([0, 10], np.uint8), np.array([5, 0], np.uint8)) == 7.5


@pytest.mark.parametrize("figure", [psnr, ssim, l1])
class TestRefusals:
    def test_other_shapes(self, figure) -> None:
        with pytest.raises(SpadError, match="one grid"):
            figure(np.zeros((2, 3)), np.zeros((3, 2)))

    def test_empty(self, figure) -> None:
        with pytest.raises(SpadError, match="no voxels"):
            figure(np.zeros((0, 3)), np.zeros((0, 3)))
