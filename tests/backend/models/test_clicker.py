"""The click decoder follows the degree of anisotropy and takes features or none."""

from __future__ import annotations

import pytest
import torch

from spad.models.clicker import INPUTS, Clicker


@pytest.fixture(scope="module")
def clicker() -> Clicker:
    torch.manual_seed(0)
    return Clicker(4, (8, 8, 16, 16)).eval()


@pytest.mark.parametrize("da", range(6))
@pytest.mark.parametrize("size", [(8, 16, 16), (5, 13, 9), (1, 8, 8)])
def test_logits_have_the_crop_s_shape(clicker: Clicker, da: int, size) -> None:
    x = torch.randn(2, len(INPUTS), *size)
    grid = clicker.feature_grid(size, da)
    features = torch.randn(2, 5, *grid)
    with torch.no_grad():
        assert clicker(x, features, da).shape == (2, 1, *size)
        assert clicker(x, None, da).shape == (2, 1, *size)


def test_no_features_are_the_same_as_zeros(clicker: Clicker) -> None:
    x = torch.randn(1, len(INPUTS), 8, 16, 16)
    nothing = torch.zeros(1, 5, *clicker.feature_grid((8, 16, 16), 0))
    with torch.no_grad():
        torch.testing.assert_close(clicker(x, nothing, 0), clicker(x, None, 0))
        other = clicker(x, torch.ones_like(nothing), 0)
    assert not torch.allclose(other, clicker(x, None, 0))
