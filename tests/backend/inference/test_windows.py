"""Windows tile a grid, and their weights add up to one."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from spad.inference.windows import Windows, least_side, spans

GRIDS = [
    ((5, 9, 30), (4, 4, 8), (1, 2, 4)),
    ((1, 1, 1), (6, 16, 16), (2, 4, 4)),
    ((7, 16, 17), (6, 16, 16), (2, 4, 4)),
    ((3, 40, 5), (1, 10, 5), (0, 4, 3)),
]


@pytest.mark.parametrize("length", [1, 4, 5, 8, 13, 100])
@pytest.mark.parametrize(("window", "overlap"), [(4, 0), (4, 3), (5, 2)])
def test_spans(length: int, window: int, overlap: int) -> None:
    laid = spans(length, window, overlap)
    assert laid[0].start == 0
    assert laid[-1].stop == length
    assert all(span.stop - span.start == min(window, length) for span in laid)
    for before, after in pairwise(laid):
        assert before.stop - after.start >= overlap
        assert before.stop_owned == after.first_owned
        assert after.start > before.start
        # what is owned lies at least half an overlap away from a face between windows
        assert before.stop - before.stop_owned >= overlap // 2
        assert after.first_owned - after.start >= overlap // 2
    assert (laid[0].first_owned, laid[-1].stop_owned) == (0, length)


@pytest.mark.parametrize(("grid", "window", "overlap"), GRIDS)
def test_owned_cells_tile_the_grid(grid, window, overlap) -> None:
    windows = Windows(grid, window, overlap)
    owned, taken = np.zeros(grid, int), np.full(grid, -1)
    whole = np.arange(owned.size).reshape(grid)
    for one in windows:
        owned[one.owned] += 1
        taken[one.owned] = whole[one.cells][one.owned_inside]
    assert (owned == 1).all()
    assert np.array_equal(taken, whole)
    assert len(list(windows)) == len(windows)


@pytest.mark.parametrize("gaussian", [True, False])
@pytest.mark.parametrize(("grid", "window", "overlap"), GRIDS)
@pytest.mark.parametrize("factors", [(1, 1, 1), (2, 16, 16)])
def test_weights_add_up_to_one(grid, window, overlap, factors, gaussian) -> None:
    windows = Windows(grid, window, overlap)
    size = [n * f - (f > 1) for n, f in zip(grid, factors, strict=True)]
    blend = windows.weights(size, factors, gaussian=gaussian)
    total = np.zeros(size)
    for one in windows:
        weight = blend.of(one)
        assert weight.dtype == np.float32
        assert (weight >= 0).all()
        total[blend.voxels(one)] += weight
    assert np.allclose(total, 1, atol=1e-6)


def test_weights_are_largest_in_the_middle() -> None:
    windows = Windows((20, 1, 1), (10, 1, 1), (5, 0, 0))
    middle = list(windows)[1]
    for gaussian in (True, False):
        row = windows.weights(gaussian=gaussian).of(middle)[:, 0, 0]
        assert row[4:6].min() == row.max()
        assert row[0] < row[2] < row[4]


class TestLeastSide:
    @pytest.mark.parametrize("length", [30, 128, 129, 150, 177, 192, 224, 500])
    @pytest.mark.parametrize("overlap", [0.25, 0.5])
    def test_as_many_windows_and_no_larger(self, length: int, overlap: float) -> None:
        def count(side: int) -> int:
            return len(spans(length, side, round(side * overlap)))

        side = least_side(length, 128, overlap, 32)
        assert side % 32 == 0
        assert 96 <= side <= 128
        assert count(side) == count(128)
        assert side == 96 or count(side - 32) > count(128) or length <= 128
