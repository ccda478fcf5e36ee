"""The quantiser's modes: soft, one drawn code, the nearest code."""

from __future__ import annotations

import pytest
import torch

from spad.errors import SpadError
from spad.models.quantizer import COMMITMENT, Quantizer


def made(mode: str) -> Quantizer:
    torch.manual_seed(0)
    return Quantizer(6, 10, 4, mode, codebook_bound=1.0)


def features() -> torch.Tensor:
    return torch.randn(2, 6, 1, 3, 3, generator=torch.Generator().manual_seed(1))


def test_soft_is_the_same_in_training_and_afterwards() -> None:
    quantizer, x = made("soft"), features()
    trained = quantizer.train()(x, 0.1)
    later = quantizer.eval().mix(quantizer.probabilities(quantizer.logits(x)))
    torch.testing.assert_close(trained.embedding, later)
    assert trained.commitment == 0


def test_gumbel_draws_one_code_in_training_and_is_soft_afterwards() -> None:
    quantizer, x = made("gumbel"), features()
    tokens = quantizer.train()(x, 0.9).embedding.movedim(1, -1).reshape(-1, 4)
    distances = torch.cdist(tokens, quantizer.codebook)
    assert distances.min(1).values.max() < 1e-5
    again = quantizer(x, 0.9).embedding.movedim(1, -1).reshape(-1, 4)
    assert not torch.equal(tokens, again)  # other noise
    soft = quantizer.eval()(x, 0.9).embedding
    torch.testing.assert_close(soft, quantizer.mix(quantizer.logits(x).softmax(-1)))


def test_gumbel_prefers_likely_codes_and_passes_a_gradient() -> None:
    quantizer = made("gumbel").train()
    x = features().requires_grad_()
    quantizer(x, 0.5).embedding.square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0
    with torch.no_grad():
        quantizer.projection.weight.zero_()
        quantizer.projection.bias.copy_(torch.tensor([6.0] + [0.0] * 9))
        tokens = quantizer(torch.zeros(100, 6, 1, 1, 1), 1.0).embedding.flatten(1)
    share = torch.isclose(tokens, quantizer.codebook[0]).all(1).float().mean()
    assert 0.9 < share <= 1  # e^6 / (e^6 + 9) = 0.978


def test_nearest_takes_the_closest_code_straight_through() -> None:
    quantizer, x = made("nearest"), features().requires_grad_()
    found = quantizer(x, 1.0)
    z = quantizer.projection(x.movedim(1, -1))
    wanted = torch.cdist(z.reshape(-1, 4), quantizer.codebook).argmin(1)
    assert torch.equal(found.logits.argmax(-1).flatten(), wanted)
    tokens = found.embedding.movedim(1, -1).reshape(-1, 4)
    torch.testing.assert_close(tokens, quantizer.codebook[wanted])
    error = (quantizer.codebook[wanted] - z.reshape(-1, 4)).square().mean()
    assert found.commitment.item() == pytest.approx((1 + COMMITMENT) * error.item(), rel=1e-5)
    found.embedding.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().max() > 0


def test_nearest_probabilities_are_certain() -> None:
    p = made("nearest").probabilities(torch.tensor([[-3.0, -1.0, -2.0]]))
    assert p.tolist() == [[0, 1, 0]]


def test_another_word_is_refused() -> None:
    with pytest.raises(SpadError, match="soft, gumbel, nearest"):
        Quantizer(6, 10, 4, "hard")
