"""Values at the crossings of lines are those of an independent interpolation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from spad.data.grid_lines import at_lines


@pytest.mark.parametrize("shape", [(7, 9, 11), (1, 9, 2), (5, 1, 1)])
@pytest.mark.parametrize("kind", [np.uint8, np.float32, np.float16])
def test_it_interpolates_as_scipy_does(shape: tuple[int, int, int], kind: type) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(0, 255, shape).astype(kind)
    # some lines lie beyond the array, some run backwards
    lines = [np.sort(rng.uniform(-2, n + 1, 6 + axis)) for axis, n in enumerate(shape)]
    lines[1] = lines[1][::-1]
    where = np.meshgrid(*lines, indexing="ij")
    wanted = ndimage.map_coordinates(array.astype(float), where, order=1, mode="nearest")
    found = at_lines(torch.from_numpy(array), lines)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.numpy(), wanted, atol=2e-4)
    many = at_lines(torch.from_numpy(np.stack([array, array[::-1]])), lines)
    assert torch.equal(many[0], found)


def test_the_nearest_value_is_taken() -> None:
    rng = np.random.default_rng(1)
    array = rng.random((5, 6, 7)) > 0.5
    lines = [rng.uniform(-1, n, 9) for n in array.shape]
    where = np.meshgrid(*lines, indexing="ij")
    wanted = ndimage.map_coordinates(array.astype(float), where, order=0, mode="nearest")
    found = at_lines(torch.from_numpy(array), lines, nearest=True)
    np.testing.assert_array_equal(found.numpy(), wanted)
