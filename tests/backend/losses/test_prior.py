"""The prior regulariser: a gradient on one process, no NaN, signs of a collapse."""

from __future__ import annotations

import math

import pytest
import torch

from spad.losses.prior import prior_regulariser, prior_terms


def regulariser(logits: torch.Tensor, warm_up: float = 1.0) -> torch.Tensor:
    return prior_regulariser(
        prior_terms(logits), divergence_weight=1.0, entropy_weight=0.2, warm_up=warm_up
    )


class TestGradient:
    def test_reaches_the_logits_on_one_process(self) -> None:
        logits = torch.randn(2, 3, 4, 4, 64, requires_grad=True)
        regulariser(logits).backward()
        assert logits.grad is not None
        assert logits.grad.norm() > 1e-4

    def test_agrees_with_the_plain_formula(self) -> None:
        logits = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
        p = logits.softmax(-1)
        mean = p.mean((0, 1))
        plain = (mean * mean.log()).sum() + math.log(7) - 0.2 * (p * p.log()).sum(-1).mean()
        (wanted,) = torch.autograd.grad(plain, logits)
        value = regulariser(logits)
        (found,) = torch.autograd.grad(value, logits)
        assert value.item() == pytest.approx(plain.item(), abs=1e-6)
        torch.testing.assert_close(found, wanted, atol=1e-6, rtol=1e-4)

    def test_follows_it_to_used_codes(self) -> None:
        torch.manual_seed(0)
        logits = torch.nn.Parameter(torch.randn(2, 30, 8) + torch.tensor([4.0] + [0.0] * 7))
        before = prior_terms(logits)
        optimiser = torch.optim.Adam([logits], lr=0.1)
        for _ in range(100):
            optimiser.zero_grad()
            regulariser(logits).backward()
            optimiser.step()
        after = prior_terms(logits)
        assert after.divergence < 0.1 * before.divergence
        assert after.entropy < 0.5 * before.entropy


class TestUnderflow:
    def test_codes_of_probability_zero_give_no_nan(self) -> None:
        logits = torch.zeros(1, 4, 6)
        logits[..., 0] = -1e5
        logits.requires_grad_()
        value = regulariser(logits)
        value.backward()
        assert torch.isfinite(value)
        assert torch.isfinite(logits.grad).all()

    def test_one_hot_tokens_in_half_precision(self) -> None:
        logits = (1e4 * torch.eye(8)[None]).bfloat16().requires_grad_()
        terms = prior_terms(logits)
        assert terms.entropy.item() == pytest.approx(0, abs=1e-6)
        assert terms.divergence.item() == pytest.approx(0, abs=1e-5)


class TestFigures:
    def test_one_code_for_all(self) -> None:
        logits = torch.zeros(2, 9, 16)
        logits[..., 3] = 50
        terms = prior_terms(logits)
        assert terms.usage_entropy.item() == pytest.approx(0, abs=1e-4)
        assert terms.divergence.item() == pytest.approx(math.log(16), abs=1e-4)

    def test_a_position_only_solution_is_seen(self) -> None:
        position_only = (50 * torch.eye(16)).expand(4, 16, 16)
        terms = prior_terms(position_only)
        assert terms.usage_entropy.item() == pytest.approx(math.log(16), abs=1e-4)
        assert terms.position_information.item() == pytest.approx(0, abs=1e-4)

    def test_tokens_that_tell_images_apart(self) -> None:
        told_apart = 50 * torch.eye(4)[:, None].expand(4, 9, 4)
        terms = prior_terms(told_apart)
        assert terms.position_information.item() == pytest.approx(math.log(4), abs=1e-4)


def test_warm_up_scales_the_whole_term() -> None:
    logits = torch.randn(1, 8, 5)
    assert regulariser(logits, warm_up=0.0).item() == 0
    assert regulariser(logits, 0.5).item() == pytest.approx(regulariser(logits).item() / 2)
