"""Crops through a linear map: voxel for voxel where it is the identity, a turn or a mirror."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from spad.data.augment import random_intensity, random_matrix, random_quality, resample_crop

Change = Callable[[torch.Tensor, np.random.Generator], torch.Tensor]
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
    matrix = random_matrix(np.random.default_rng(1), (1.1, 1.1), 30, 0, flips=True)
    found = resample_crop(labels, CENTRE, (6, 8, 10), matrix, mode="nearest")
    assert set(found.unique().tolist()) <= {0.0, 1.0, 2.0, 3.0, 4.0}


def test_beyond_the_scan_its_last_voxels_are_repeated() -> None:
    crop = resample_crop(SCAN, np.array([9.5, 14.5, 39.5]), (2, 2, 4), np.eye(3))
    assert torch.equal(crop[..., 2], crop[..., 3])


def test_depth_and_plane_have_their_own_scale() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        matrix = random_matrix(rng, (0.8, 1.25), 45, 0, flips=True)
        assert np.linalg.norm(matrix, axis=0) == pytest.approx([0.8, 1.25, 1.25])


def test_a_tilt_turns_space_and_not_voxels() -> None:
    spacing = (3.0, 1.5, 1.5)
    rng = np.random.default_rng(0)
    matrix = random_matrix(rng, (1.0, 1.0), 90, 30, flips=False, spacing=spacing)
    in_mm = np.diag(spacing) @ matrix @ np.diag(1 / np.array(spacing))
    assert in_mm @ in_mm.T == pytest.approx(np.eye(3), abs=1e-9)
    assert abs(matrix[0, 1]) > 0.01


def test_beyond_the_scan_its_mirror_image_for_tokens() -> None:
    crop = resample_crop(
        SCAN, np.array([9.5, 14.5, 39.5]), (2, 2, 4), np.eye(3), beyond="reflection"
    )
    assert torch.equal(crop[..., 2], crop[..., 1])
    assert torch.equal(crop[..., 3], crop[..., 0])


def test_channels_are_taken_alike() -> None:
    colours = torch.stack([SCAN, 2 * SCAN])
    crop = resample_crop(colours, CENTRE, (6, 8, 10), np.eye(3))
    torch.testing.assert_close(crop[1], 2 * crop[0])
    torch.testing.assert_close(crop[0], resample_crop(SCAN, CENTRE, (6, 8, 10), np.eye(3)))


@pytest.mark.parametrize("change", [random_intensity, random_quality])
def test_intensities_stay_in_range_and_follow_the_generator(change: Change) -> None:
    changed = [change(SCAN[None], np.random.default_rng(seed)) for seed in range(60)]
    assert all(c.min() >= 0 and c.max() <= 1 and c.shape == SCAN[None].shape for c in changed)
    assert 15 < sum(not torch.equal(c, SCAN[None]) for c in changed) < 60
    assert torch.equal(changed[7], change(SCAN[None], np.random.default_rng(7)))


def test_a_single_slice_is_blurred_in_its_plane_alone() -> None:
    slices = SCAN[:1][None]
    for seed in range(40):
        assert random_quality(slices, np.random.default_rng(seed)).isfinite().all()
