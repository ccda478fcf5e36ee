"""Dice and cross entropy where some organs were not labelled."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from spad.losses.segmentation import (
    deep_supervision_loss,
    dice_cross_entropy,
    merge_unlabelled,
)


@pytest.fixture
def labels() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randint(0, 4, (1, 4, 8, 8))


def known(*classes: int) -> torch.Tensor:
    mask = torch.zeros(1, 4, dtype=torch.bool)
    mask[0, list(classes)] = True
    return mask


def test_a_right_answer_costs_little_and_a_wrong_one_much(labels: torch.Tensor) -> None:
    right = 20 * F.one_hot(labels, 4).movedim(-1, 1).float()
    everything = known(0, 1, 2, 3)
    assert dice_cross_entropy(right, labels, everything) < 0.02
    assert dice_cross_entropy(right.roll(1, 1), labels, everything) > 5


def test_unlabelled_classes_count_as_background() -> None:
    logits = torch.randn(1, 4, 2, 2, 2)
    merged = merge_unlabelled(logits, known(0, 2)).softmax(1)
    p = logits.softmax(1)
    torch.testing.assert_close(merged[:, 0], p[:, 0] + p[:, 1] + p[:, 3])
    torch.testing.assert_close(merged[:, 2], p[:, 2])
    assert merged[:, [1, 3]].max() == 0


def test_an_organ_that_was_not_labelled_is_no_mistake(labels: torch.Tensor) -> None:
    found = labels.clone()
    partly = torch.where(labels == 2, labels, 0)
    logits = 20 * F.one_hot(found, 4).movedim(-1, 1).float()
    assert dice_cross_entropy(logits, partly, known(0, 2)) < 0.02
    assert dice_cross_entropy(logits, partly, known(0, 1, 2, 3)) > 1


def test_coarser_heads_learn_from_the_labels_at_their_cells(labels: torch.Tensor) -> None:
    blocks = torch.zeros(1, 4, 8, 8, dtype=torch.long)
    blocks[:, 2:, 4:] = 1
    fine = 20 * F.one_hot(blocks, 4).movedim(-1, 1).float()
    coarse = 20 * F.one_hot(blocks[:, ::2, ::2, ::2], 4).movedim(-1, 1).float()
    assert deep_supervision_loss([fine, coarse], blocks, known(0, 1)) < 0.02
    coarse.requires_grad_()
    deep_supervision_loss([fine, -coarse], blocks, known(0, 1)).backward()
    assert coarse.grad is not None
    assert coarse.grad.abs().max() > 0


def test_balance_lets_voxels_of_small_organs_count_more() -> None:
    labels = torch.zeros(1, 4, 8, 8, dtype=torch.long)
    labels[0, 0, 0, :4] = 1  # 4 of 256 voxels
    logits = torch.zeros(1, 2, 4, 8, 8, requires_grad=True)
    both = torch.ones(1, 2, dtype=torch.bool)

    def share(balance: float) -> float:
        """Of the cross entropy's pull that comes from the small organ's voxels."""
        with_it = dice_cross_entropy(logits, labels, both, balance=balance)
        plain = dice_cross_entropy(logits, labels, both) - F.cross_entropy(logits, labels)
        (gradient,) = torch.autograd.grad(with_it - plain, logits)
        return (gradient[:, 0][labels == 1].abs().sum() / gradient[:, 0].abs().sum()).item()

    assert share(0.0) == pytest.approx(4 / 256, rel=1e-3)
    assert share(1.0) == pytest.approx(1 / 2, rel=1e-3)
    assert 4 / 256 < share(0.5) < 1 / 2
    deep = deep_supervision_loss([logits], labels, both, balance=0.5)
    torch.testing.assert_close(deep, dice_cross_entropy(logits, labels, both, balance=0.5))
