"""Crops through a linear map: voxel for voxel where it is the identity, a turn or a mirror."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spad.data.augment import random_intensity, random_matrix, resample_crop

SCAN = torch.rand(20, 30, 40, generator=torch.Generator().manual_seed(0))
CENTRE = np.array([9.5, 14.5, 19.5])


def test_the_identity_takes_voxels_as_they_are() -> None:
    crop = resample_crop(SCAN, CENTRE, (6, 8, 10), np.eye(3))
    torch.testing.assert_close(crop, SCAN[7:13, 11:19, 15:25], atol=1e-5, rtol=0)


def test_a_mirror_and_a_quarter_turn() -> None:
    mirrored = resample_crop(SCAN, CENTRE, (6, 8, 8), np.diag([1.0, -1.0, 1.0]))
    torch.testing.assert_close(mirrored, SCAN[7:13, 11:19, 16:24].flip(1), atol=1e-5, rtol=0)
    turn = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])
    turned = resample_crop(SCAN, CENTRE, (6, 8, 8), turn)
    wanted = torch.rot90(SCAN[7:13, 11:19, 16:24], -1, (1, 2))
    torch.testing.assert_close(turned, wanted, atol=1e-5, rtol=0)


def test_labels_stay_whole_numbers_where_the_scan_is_interpolated() -> None:
    labels = (SCAN * 5).floor()
    matrix = random_matrix(np.random.default_rng(1), (0.8, 1.2), 30, flips=True)
    found = resample_crop(labels, CENTRE, (6, 8, 10), matrix, mode="nearest")
    assert set(found.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}


def test_beyond_the_scan_its_last_voxels_are_repeated() -> None:
    crop = resample_crop(SCAN, np.array([9.5, 14.5, 39.5]), (2, 2, 4), np.eye(3))
    assert torch.equal(crop[..., 2], crop[..., 3])


def test_zoom_stays_in_its_range_and_keeps_the_ratio_of_axes() -> None:
    for seed in range(20):
        matrix = random_matrix(np.random.default_rng(seed), (0.8, 1.25), 45, flips=True)
        scales = np.linalg.norm(matrix, axis=0)
        assert scales == pytest.approx([scales[0]] * 3)
        assert 0.8 <= scales[0] <= 1.25


def test_intensities_stay_in_range_and_follow_the_generator() -> None:
    changed = [
        random_intensity(SCAN, np.random.default_rng(seed), noise=True) for seed in range(40)
    ]
    assert all(c.min() >= 0 and c.max() <= 1 for c in changed)
    assert any(not torch.equal(c, SCAN) for c in changed)
    assert torch.equal(changed[7], random_intensity(SCAN, np.random.default_rng(7), noise=True))
