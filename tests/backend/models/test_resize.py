"""Resizing: area means down, linear up, outer edges in place."""

from __future__ import annotations

import pytest
import torch

from spad.models.resize import pad_to_multiple, resize


def test_an_equal_size_is_the_same_tensor():
    x = torch.rand(1, 1, 2, 3, 4)
    assert resize(x, (2, 3, 4)) is x


def test_shrinking_takes_means():
    x = torch.arange(8.0).view(1, 1, 1, 1, 8)
    assert resize(x, (1, 1, 2)).flatten().tolist() == [1.5, 5.5]
    assert resize(x, (1, 1, 1)).item() == 3.5


def test_growing_is_linear_between_centres():
    x = torch.tensor([0.0, 4.0]).view(1, 1, 1, 1, 2)
    assert resize(x, (1, 1, 4)).flatten().tolist() == [0, 1, 3, 4]


def test_one_axis_shrinks_while_another_grows():
    x = torch.rand(2, 3, 6, 1, 2)
    found = resize(x, (3, 5, 4))
    assert found.shape == (2, 3, 3, 5, 4)
    means = x.unflatten(2, (3, 2)).mean(3)
    torch.testing.assert_close(found[..., 0, 0], means[..., 0, 0])
    torch.testing.assert_close(found.mean((2, 3, 4)), x.mean((2, 3, 4)))


@pytest.mark.parametrize(
    ("size", "padded"), [((1, 1, 1), (4, 16, 16)), ((5, 17, 32), (8, 32, 32)), ((4, 16, 16), None)]
)
def test_padding_repeats_the_far_voxel(size, padded):
    x = torch.rand(1, 2, *size)
    found = pad_to_multiple(x, (4, 16, 16))
    assert tuple(found.shape[2:]) == (padded or size)
    depth, height, width = size
    assert torch.equal(found[..., :depth, :height, :width], x)
    assert torch.equal(found[..., -1, -1, -1], x[..., -1, -1, -1])
