"""The adversarial terms: hinge losses, the gate's arithmetic, and the adaptive weight."""

from __future__ import annotations

import pytest
import torch

from spad.losses.adversarial import Gate, adaptive_weight, critic_loss, generator_loss


def test_a_critic_that_tells_them_apart_by_more_than_the_margin_has_no_loss() -> None:
    assert critic_loss(torch.full((4,), 1.5), torch.full((4,), -2.0)) == 0
    assert critic_loss(torch.zeros(4), torch.zeros(4)) == 1
    assert generator_loss(torch.tensor([1.0, 3.0])) == -2


def test_the_gate_opens_only_after_a_run_of_low_losses() -> None:
    gate = Gate(0.025)
    assert not gate.is_open
    low = torch.tensor(0.0)
    steps = 0
    while not gate.is_open:
        gate.see(low)
        steps += 1
    assert steps == 14  # 0.1 * 0.9**14 is the first below 0.025
    gate.see(torch.tensor(0.03))
    assert not gate.is_open  # the mean is still low, the last one is not


def test_the_adaptive_weight_evens_out_the_pulls() -> None:
    last = torch.tensor([1.0, 2.0], requires_grad=True)
    weight = adaptive_weight(3 * last.sum(), 0.5 * last.sum(), last)
    assert weight.item() == pytest.approx(6, rel=1e-4)
    assert not weight.requires_grad
