"""Organs that are one piece."""

from __future__ import annotations

import torch

from spad.inference.pieces import keep_largest


def probabilities() -> torch.Tensor:
    """Label 1 in a large and a small box, label 2 in two boxes, with soft borders."""
    p = torch.full((3, 12, 20, 20), 0.05)
    p[1, 2:8, 2:8, 2:8] = 0.9
    p[1, 8, 2:8, 2:8] = 0.4
    p[1, 9:11, 15:18, 15:18] = 0.9
    p[2, 1:3, 14:16, 2:4] = 0.9
    p[2, 1:3, 2:4, 16:18] = 0.9
    p[0] = 1 - p[1] - p[2]
    return p


def test_what_lies_apart_becomes_background_and_the_border_stays() -> None:
    p = probabilities()
    keep_largest(p, [0, 6, 7], [6])
    marks = p.argmax(0)
    assert (marks == 1).sum() == 6**3
    assert marks[9:11, 15:18, 15:18].eq(0).all()
    assert p[1, 8, 4, 4] == torch.tensor(0.4)
    torch.testing.assert_close(p.sum(0), torch.ones(p.shape[1:]))


def test_other_labels_keep_their_pieces() -> None:
    p = probabilities()
    keep_largest(p, [0, 6, 7], [6])
    assert torch.equal(p[2], probabilities()[2])
