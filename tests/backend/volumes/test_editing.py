"""Edits of a mask: volume, spacing, islands, slices in between, seeds and ranges."""

from __future__ import annotations

import numpy as np
import pytest

from spad.errors import SpadError
from spad.volumes import editing


def ball(shape, spacing, radius_mm, centre=None):
    centre = (np.array(shape) - 1) / 2 if centre is None else np.array(centre)
    place = (np.moveaxis(np.indices(shape), 0, -1) - centre) * spacing
    return np.linalg.norm(place, axis=-1) <= radius_mm


def faces(mask):
    """How many faces of voxels the surface has."""
    return sum(np.count_nonzero(np.diff(mask, axis=axis)) for axis in range(3))


@pytest.mark.parametrize("spacing", [(1, 1, 1), (5, 1, 1), (0.8, 3, 0.8)])
def test_smoothing_takes_bumps_off_and_keeps_the_volume(spacing):
    shape = tuple(int(60 / step) for step in spacing)
    rng = np.random.default_rng(0)
    smooth = ball(shape, spacing, 20)
    shell = ball(shape, spacing, 23) & ~ball(shape, spacing, 17)
    rough = np.where(shell, rng.random(shape) < 0.5, smooth)
    made = editing.smooth(rough, spacing, 4)
    assert made.sum() == pytest.approx(rough.sum(), rel=0.01)
    assert faces(made) < 0.6 * faces(rough)
    assert (made & smooth).sum() > 0.9 * smooth.sum()


def test_a_smooth_ball_stays_as_large_as_it_was():
    made = editing.smooth(ball((40, 40, 40), (1, 1, 1), 10), (1, 1, 1), 8)
    assert made.sum() == pytest.approx(ball((40, 40, 40), (1, 1, 1), 10).sum(), rel=0.01)


def test_thick_slices_are_not_smoothed_as_if_they_were_thin():
    """A plate of one slice of 8 mm stays; one of 1 mm would be worn down to a lump."""
    mask = np.zeros((9, 40, 40), bool)
    mask[4, 5:35, 5:35] = True
    made = editing.smooth(mask, (8, 1, 1), 4)
    assert not made[[3, 5]].any()
    thin = editing.smooth(mask, (1, 1, 1), 8)
    assert thin[[3, 5]].any()


def test_an_organ_cut_off_by_the_end_of_the_scan_stays_so():
    mask = np.zeros((20, 40, 40), bool)
    mask[:8, 10:30, 10:30] = True
    made = editing.smooth(mask, (1, 1, 1), 4)
    assert made[0, 15:25, 15:25].all()
    assert made[0].sum() >= made[4].sum() - 8


def test_smoothing_nothing_and_by_nothing():
    empty = np.zeros((4, 4, 4), bool)
    assert not editing.smooth(empty, (1, 1, 1), 3).any()
    with pytest.raises(SpadError, match="more than 0 mm"):
        editing.smooth(empty, (1, 1, 1), 0)


@pytest.fixture
def islands():
    mask = np.zeros((10, 20, 20), bool)
    mask[2:5, 2:8, 2:8] = True
    mask[5, 8, 8] = True  # touches by a corner only
    mask[7:9, 12:18, 12:18] = True
    return mask


def test_islands_are_kept_and_removed(islands):
    before = islands.copy()
    kept = editing.keep_island(islands, (3, 4, 4))
    removed = editing.remove_island(islands, (3, 4, 4))
    assert kept.sum() == 3 * 6 * 6
    assert kept[2:5, 2:8, 2:8].all()
    assert np.array_equal(kept | removed, before)
    assert not (kept & removed).any()
    assert np.array_equal(islands, before), "the mask that was given stays"


@pytest.mark.parametrize("voxel", [(0, 0, 0), (-3, 4, 4), (3, 4, 40)])
def test_an_island_has_to_be_hit(islands, voxel):
    for call in (editing.keep_island, editing.remove_island):
        with pytest.raises(SpadError, match="no voxel at"):
            call(islands, voxel)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_slices_between_are_filled_from_their_outlines(axis):
    """A cone of which every fifth slice is drawn."""
    z, y, x = np.indices((21, 40, 40))
    cone = np.hypot(y - 19.5, x - 19.5) <= 5 + 0.5 * z
    drawn = np.where(z % 5 == 0, cone, False)
    made = np.moveaxis(editing.fill_between(np.moveaxis(drawn, 0, axis), axis), axis, 0)
    assert np.array_equal(made[::5], cone[::5])
    wrong = (made != cone).sum(axis=(1, 2)) / cone.sum(axis=(1, 2))
    assert wrong.max() < 0.1, "the nearest drawn slice instead would be wrong by 0.3"


def test_distances_between_slices_are_in_mm():
    """Rows of 4 mm and of 1 mm make the same of one shape."""
    fine = np.zeros((3, 80, 80), bool)
    fine[0, 32:48, 8:72] = fine[0, 8:72, 60:72] = True
    fine[2, 8:72, 20:64] = True
    coarse = fine[:, 2::4]
    expected = editing.fill_between(fine, 0, (5, 1, 1))[1, 2::4]
    wrong = (editing.fill_between(coarse, 0, (5, 4, 1))[1] != expected).sum()
    blind = (editing.fill_between(coarse, 0)[1] != expected).sum()
    assert wrong < 0.05 * expected.sum()
    assert blind > 2 * wrong


def test_outlines_that_do_not_overlap_wander():
    mask = np.zeros((5, 12, 40), bool)
    mask[0, 3:9, 2:8] = True
    mask[4, 3:9, 30:36] = True
    made = editing.fill_between(mask, 0)
    for n in range(5):
        centre = np.argwhere(made[n]).mean(axis=0)
        assert centre == pytest.approx((5.5, 4.5 + 7 * n), abs=0.6)
        assert made[n].sum() == pytest.approx(36, abs=8)


def test_filling_needs_two_slices():
    mask = np.zeros((5, 9, 9), bool)
    with pytest.raises(SpadError, match="on no slice"):
        editing.fill_between(mask, 0)
    mask[2, 4, 4] = True
    with pytest.raises(SpadError, match="on one slice"):
        editing.fill_between(mask, 0)


@pytest.mark.parametrize("spacing", [(1, 1, 1), (4, 1, 1)])
def test_seeds_grow_to_the_edges_of_the_image(spacing):
    shape = tuple(int(48 / step) for step in spacing)
    organ = ball(shape, spacing, 12)
    rng = np.random.default_rng(0)
    values = np.where(organ, 100, 0) + rng.normal(0, 8, shape)
    seeds = np.zeros(shape, np.uint16)
    middle = tuple(n // 2 for n in shape)
    seeds[middle[0], middle[1] - 4 : middle[1] + 4, middle[2]] = 700
    seeds[:, 1, :] = seeds[0] = seeds[-1] = 5
    drawn = seeds.copy()
    made = editing.grow_from_seeds(values, seeds, spacing)
    assert made.dtype == seeds.dtype
    assert set(np.unique(made)) == {5, 700}
    assert np.array_equal(made[drawn > 0], drawn[drawn > 0])
    overlap = 2 * ((made == 700) & organ).sum() / ((made == 700).sum() + organ.sum())
    assert overlap > 0.9
    assert np.array_equal(seeds, drawn)


def test_edges_along_thick_slices_count():
    """The image changes along depth only, where the slices are 6 mm thick."""
    values = np.zeros((10, 12, 12), np.float32)
    values[4:] = 100
    seeds = np.zeros(values.shape, np.uint8)
    seeds[0, 5, 5], seeds[9, 5, 5] = 1, 2
    made = editing.grow_from_seeds(values, seeds, (6, 1, 1))
    plane = slice(2, 10)
    assert (made[:4, plane, plane] == 1).all()
    assert (made[4:, plane, plane] == 2).all()


def test_seeds_grow_in_a_region_alone():
    values = np.zeros((6, 10, 10), np.float32)
    seeds = np.zeros(values.shape, np.uint8)
    seeds[2, 2, 2], seeds[2, 7, 7] = 1, 2
    region = (slice(1, 4), slice(0, 10), slice(0, 10))
    made = editing.grow_from_seeds(values, seeds, (1, 1, 1), region)
    assert made[1:4].all()
    assert not made[0].any()
    assert not made[4:].any()


def test_one_seed_has_nothing_to_grow_against():
    seeds = np.zeros((4, 4, 4), np.uint8)
    with pytest.raises(SpadError, match="no strokes"):
        editing.grow_from_seeds(seeds, seeds, (1, 1, 1))
    seeds[1, 1, 1] = 3
    with pytest.raises(SpadError, match="two or more"):
        editing.grow_from_seeds(seeds, seeds, (1, 1, 1))


def test_values_that_are_no_numbers_are_flooded_too():
    values = np.full((5, 8, 8), np.nan, np.float32)
    values[:, :, :4] = 10
    seeds = np.zeros(values.shape, np.uint8)
    seeds[2, 4, 1], seeds[2, 4, 6] = 1, 2
    made = editing.grow_from_seeds(values, seeds, (1, 1, 1))
    assert made.all()


def test_a_range_has_both_its_ends():
    values = np.array([-5.0, 0.0, 5.0, 10.0, 11.0, np.nan])
    assert editing.within(values, 0, 10).tolist() == [False, True, True, True, False, False]
    with pytest.raises(SpadError, match="lower value first"):
        editing.within(values, 10, 0)


def test_boxes():
    mask = np.zeros((6, 7, 8), bool)
    assert editing.bounding_box(mask) is None
    mask[2:4, 1, 3:8] = True
    box = editing.bounding_box(mask)
    assert box == (slice(2, 4), slice(1, 2), slice(3, 8))
    assert editing.grown(box, (1, 2.5, 1), mask.shape) == (slice(1, 5), slice(0, 5), slice(2, 8))
