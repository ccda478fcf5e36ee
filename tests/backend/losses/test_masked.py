"""Masked image modelling: how many tokens are hidden, and the loss on them alone."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from spad.losses.masked import masked_terms, random_mask, visible_count


@pytest.mark.parametrize(("tokens", "visible"), [(500, 224), (100, 44), (1, 0)])
def test_visible_tokens_round_as_the_authors_do(tokens: int, visible: int) -> None:
    assert visible_count(tokens, 0.55) == visible
    mask = random_mask(tokens, 0.55, np.random.default_rng(0))
    assert (~mask).sum() == visible


def test_the_same_generator_gives_the_same_mask() -> None:
    one, two = (random_mask(60, 0.5, np.random.default_rng(3)) for _ in range(2))
    assert (one == two).all()
    assert (one != random_mask(60, 0.5, np.random.default_rng(4))).any()


def test_only_masked_tokens_count() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 6, 5), torch.randn(2, 6, 5).softmax(-1)
    masked = torch.zeros(2, 6, dtype=torch.bool)
    masked[:, 2] = True
    before = masked_terms(logits, target, masked)
    logits[:, 3] += 100
    assert masked_terms(logits, target, masked).cross_entropy == before.cross_entropy
    assert before.divergence < before.cross_entropy


def test_a_perfect_prediction_has_no_divergence() -> None:
    logits = torch.randn(1, 4, 7)
    logits[0, 0, 2] = -1e5
    masked = torch.ones(1, 4, dtype=torch.bool)
    terms = masked_terms(logits, logits.softmax(-1), masked)
    assert terms.divergence.item() == pytest.approx(0, abs=1e-6)
