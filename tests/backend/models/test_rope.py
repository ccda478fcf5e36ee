"""Additive rotary positions."""

from __future__ import annotations

import torch

from spad.models.rope import rotary_angles, rotate


def test_rotation_keeps_lengths():
    x = torch.rand(2, 3, 24, 16)
    turned = rotate(x, rotary_angles((2, 3, 4), 16))
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert (turned - x).abs().max() > 0.1


def test_attention_sees_differences_of_positions_only():
    grid = (4, 5, 6)
    query, key = torch.rand(16), torch.rand(16)
    angles = rotary_angles(grid, 16)
    turned_query = rotate(query.expand(120, 16), angles).view(*grid, 16)
    turned_key = rotate(key.expand(120, 16), angles).view(*grid, 16)
    near = (turned_query[1, 2, 3] * turned_key[0, 1, 1]).sum()
    far = (turned_query[3, 4, 5] * turned_key[2, 3, 3]).sum()
    other = (turned_query[3, 4, 5] * turned_key[1, 3, 3]).sum()
    torch.testing.assert_close(near, far, rtol=0, atol=1e-5)
    assert (near - other).abs() > 1e-4


def test_a_single_slice_has_the_embedding_of_two_dimensions():
    flat = rotary_angles((1, 3, 4), 64)
    deep = rotary_angles((2, 3, 4), 64)
    assert torch.equal(flat, deep[:12])
    y, x = torch.meshgrid(torch.arange(3.0), torch.arange(4.0), indexing="ij")
    base = 10000 ** (-2 * torch.arange(16) / 32)
    wanted = torch.cat([y.flatten()[:, None] * base, x.flatten()[:, None] * base], dim=1)
    torch.testing.assert_close(flat, wanted)


def test_depth_moves_every_pair():
    angles = rotary_angles((2, 1, 1), 64)
    assert (angles[0] == 0).all()
    assert (angles[1] > 0).all()
    torch.testing.assert_close(angles[1, :16], angles[1, 16:])
