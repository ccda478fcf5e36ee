"""Masked image modelling: which tokens are hidden, and the loss on them.

Source: PUMIT, arXiv 2312.07630, equation 6.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F


def visible_count(tokens: int, ratio: float) -> int:
    """Tokens that stay visible: int(tokens * (1 - ratio)), 224 of 500 and 44 of 100 at 0.55."""
    return int(tokens * (1 - ratio))


def random_mask(tokens: int, ratio: float, rng: np.random.Generator) -> np.ndarray:
    """Hide tokens uniformly at random.

    Args:
        tokens: how many there are.
        ratio: fraction to hide, 0 to 1.
        rng: the source of randomness.

    Returns:
        (tokens,) booleans, True where hidden.
    """
    masked = np.ones(tokens, dtype=bool)
    masked[rng.permutation(tokens)[: visible_count(tokens, ratio)]] = False
    return masked


@dataclass(frozen=True)
class MaskedTerms:
    """Means over the masked tokens, in nats; `cross_entropy` carries the gradient."""

    cross_entropy: torch.Tensor
    divergence: torch.Tensor


def masked_terms(logits: torch.Tensor, target: torch.Tensor, masked: torch.Tensor) -> MaskedTerms:
    """Compare predicted codes with the tokenizer's soft tokens.

    Args:
        logits: (B, L, K) predictions.
        target: (B, L, K) probabilities of the tokenizer.
        masked: (B, L) booleans, at least one True.
    """
    log_prediction = F.log_softmax(logits[masked].float(), dim=-1)
    wanted = target[masked].float()
    cross_entropy = -(wanted * log_prediction).sum(-1).mean()
    entropy = -torch.special.xlogy(wanted, wanted).sum(-1).mean()
    return MaskedTerms(cross_entropy, (cross_entropy - entropy).detach())
