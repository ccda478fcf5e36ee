"""Patches, simulated users and click samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spad.data.click_features import KnownScan
from spad.data.click_samples import ClickSampler
from spad.data.cohort import Prepared
from spad.data.options import DataOptions
from spad.data.patches import akin, alike, filled, marks, patch_at
from spad.data.simulated_user import (
    deepest_voxel,
    drawn_region,
    human_click,
    largest_piece,
    next_click,
)

SPACING = (3.0, 1.5, 1.5)


def test_a_patch_takes_every_grid_at_the_same_place() -> None:
    shape = (40, 80, 80)
    z, y, x = np.mgrid[0:40, 0:80, 0:80]
    fine = torch.from_numpy((z * 3.0 + y + x).astype(np.float32))
    coarse = fine.view(20, 2, 40, 2, 40, 2).mean((1, 3, 5))
    patch = patch_at((20, 40, 40), SPACING, 1.5)
    assert patch.size == (32, 64, 64)
    assert patch.da == 1
    one, other = patch.take(fine, shape), patch.take(coarse, shape)
    inner = (slice(4, -4),) * 3
    torch.testing.assert_close(one[inner], other[inner], rtol=0, atol=1e-2)
    half = patch.take(fine, shape, level=1)
    assert half.shape == (32, 32, 32)
    middle = patch.to_scan(np.array([[16.0, 32.5, 32.5]]))[0]
    assert abs(float(half[16, 16, 16]) - float(middle @ [3, 1, 1])) < 0.6


@pytest.mark.parametrize("in_plane", [1.5, 2.5, 5.0])
def test_patch_voxels_go_there_and_back(in_plane: float) -> None:
    patch = patch_at((11.2, 33.0, 20.5), SPACING, in_plane)
    points = np.random.default_rng(0).uniform(0, 40, (20, 3))
    np.testing.assert_allclose(patch.to_scan(patch.to_patch(points)), points, atol=1e-9)
    np.testing.assert_allclose(
        patch.to_patch(patch.centre[None])[0], (np.array(patch.size) - 1) / 2
    )


def test_marks_are_highest_at_their_points_and_round_in_mm() -> None:
    patch = patch_at((20, 40, 40), SPACING, 1.5)
    drawn = marks(np.array([[10.0, 20.0, 30.0]]), patch)
    assert np.unravel_index(int(drawn.argmax()), drawn.shape) == (10, 20, 30)
    assert drawn[11, 20, 30] == pytest.approx(float(drawn[10, 22, 30]), abs=0.02)
    assert not marks(np.zeros((0, 3)), patch).any()
    assert marks(np.array([[10, 20, 30], [10, 20, 30]]), patch).max() <= 1
    assert filled(np.array([[1.2, 2, 3], [99, 0, 0]]), patch).sum() == 1


def test_alike_and_akin_compare_with_the_places_clicked() -> None:
    image = torch.zeros(8, 8, 8)
    image[:, :, 4:] = 0.6
    like = alike(image, np.array([[4, 4, 6]]))
    assert like[0, 0, 7] > 0.9
    assert like[0, 0, 0] < 0.1
    assert not alike(image, np.zeros((0, 3))).any()
    assert not alike(image, np.array([[40, 4, 6]])).any()
    features = torch.zeros(2, 4, 4, 4)
    features[0, :2], features[1, 2:] = 3.0, 1.0
    near = akin(features, np.array([[1, 1, 1]]), (8, 8, 8))
    assert near[0, 0, 3, 3] == pytest.approx(1)
    assert near[0, 3, 0, 0] == pytest.approx(0)


def test_the_robot_clicks_the_middle_of_the_largest_error_in_mm() -> None:
    wanted = np.zeros((9, 30, 30), bool)
    wanted[2:7, 5:20, 5:20] = True
    assert next_click(wanted, np.zeros_like(wanted), (5.0, 1.0, 1.0)) == ((3, 12, 12), True)
    found = wanted.copy()
    found[2:7, 20:29, 5:20] = True
    voxel, positive = next_click(wanted, found, SPACING)  # type: ignore[misc]
    assert not positive
    assert found[voxel]
    assert not wanted[voxel]
    assert next_click(wanted, wanted, SPACING) is None
    assert deepest_voxel(np.ones((3, 3, 3), bool), (1, 1, 1)) == (1, 1, 1)
    two = np.zeros((5, 5, 9), bool)
    two[1, 1, 1:3] = two[3, 3, 5:8] = True
    assert largest_piece(two).sum() == 3


@pytest.mark.parametrize("seed", range(6))
def test_a_person_clicks_inside_what_is_wrong(seed: int) -> None:
    rng = np.random.default_rng(seed)
    wanted = np.zeros((12, 30, 30), bool)
    wanted[3:9, 5:20, 5:20] = True
    found = np.zeros_like(wanted)
    found[3:9, 10:26, 5:20] = True
    voxel, positive = human_click(wanted, found, SPACING, rng)  # type: ignore[misc]
    assert wanted[voxel] == positive
    assert wanted[voxel] != found[voxel]
    region = drawn_region(wanted, rng)
    assert region.any()
    assert (region & wanted).any()


def known(seed: int = 0) -> KnownScan:
    rng = np.random.default_rng(seed)
    labels = torch.zeros(24, 60, 60, dtype=torch.uint8)
    labels[6:18, 10:40, 10:40], labels[8:12, 42:50, 42:50] = 1, 2
    image = torch.from_numpy(rng.random((1, 24, 60, 60), np.float32)).half()
    image[0][labels == 1] += 1
    centres = {n: np.argwhere(labels.numpy() == n).astype(np.float32) for n in (1, 2)}
    scan = Prepared(
        "a", "CT", image, labels, (1, 2), centres, 1, False, False, (0.0, 2.0), spacing=SPACING
    )
    boxes = {1: np.array([[6, 10, 10], [18, 40, 40]]), 2: np.array([[8, 42, 42], [12, 50, 50]])}
    organs = torch.zeros(3, 24, 30, 30, dtype=torch.uint8)
    organs[0] = 255
    return KnownScan(
        scan,
        torch.rand(4, 12, 15, 15, generator=torch.Generator().manual_seed(0)).half(),
        organs,
        {1: 1, 2: 2},
        boxes,
    )


def test_click_samples_are_a_function_of_seed_and_number() -> None:
    one, other = (ClickSampler([known()], DataOptions(batch=2), seed=3, augment=True) for _ in "ab")
    for step in (0, 7):
        first, second = one.batch(step), other.batch(step)
        for name in ("image", "wanted", "organs", "features", "rough"):
            torch.testing.assert_close(getattr(first, name), getattr(second, name))
        assert first.rng(1).random() == second.rng(1).random()
        assert first.image.shape[2:] == first.wanted.shape[1:]
        assert first.image.min() >= 0
        assert first.image.max() <= 1
    assert not torch.equal(one.batch(1).image, one.batch(2).image)


def test_without_changes_the_object_is_in_the_patch_and_is_what_is_meant() -> None:
    sampler = ClickSampler([known()], DataOptions(batch=1), seed=0, augment=False)
    shares = []
    for step in range(8):
        batch = sampler.batch(step)
        assert batch.wanted.any()
        image = batch.image[0, 0]
        shares.append(float(image[batch.wanted[0]].mean()))
    # label 1 is brighter than the noise, label 2 is not
    assert max(shares) > 0.65
    assert min(shares) < 0.35
