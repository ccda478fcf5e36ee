"""How a tokenizer uses its codes, pooled over the tokens of several scans."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from spad.inference.codes import entropy

FEWEST_CROPS = 8
"""Of one size; position information of fewer is bounded by their number rather than by codes."""


class Usage:
    """Sums over tokens.

    Args:
        codes: K, how many there are.

    Attributes:
        tokens: how many were added.
        sums: (K,) float64: sum of the probabilities of each code.
        first: (K,) bool: whether a code is the likeliest of some token.
        entropies: sum of the tokens' entropies, nats.
    """

    def __init__(self, codes: int) -> None:
        self.tokens = 0
        self.sums: NDArray[np.float64] = np.zeros(codes)
        self.first = np.zeros(codes, bool)
        self.entropies = 0.0

    def add(self, probabilities: NDArray[np.float32]) -> None:
        """Add tokens: (..., K)."""
        p = probabilities.reshape(-1, len(self.sums))
        self.tokens += len(p)
        self.sums += p.sum(axis=0, dtype=np.float64)
        self.first[p.argmax(axis=1)] = True
        self.entropies += float(entropy(p).sum(dtype=np.float64))

    @property
    def mean(self) -> NDArray[np.float64]:
        """(K,) mean probability of each code."""
        return self.sums / max(1, self.tokens)

    def figures(self) -> dict[str, Any]:
        """Give the figures of a group of scans.

        Returns:
            `tokens, codes, codes_used` (the likeliest of some token), `codes_used_share,
            perplexity, least_used, most_used` (mean probabilities), `most_over_least` (infinite
            where a code is never used), `mean_entropy, ln_codes, mean_kl_to_uniform` (nats).
        """
        mean, codes = self.mean, len(self.sums)
        least, most = float(mean.min()), float(mean.max())
        mean_entropy = self.entropies / max(1, self.tokens)
        return {
            "tokens": self.tokens,
            "codes": codes,
            "codes_used": int(self.first.sum()),
            "codes_used_share": float(self.first.mean()),
            "perplexity": math.exp(float(entropy(mean))),
            "least_used": least,
            "most_used": most,
            "most_over_least": most / least if least > 0 else math.inf,
            "mean_entropy": mean_entropy,
            "ln_codes": math.log(codes),
            "mean_kl_to_uniform": math.log(codes) - mean_entropy,
        }


class Positions:
    """What codes tell about the image rather than about their place in it.

    Sums over crops of equal size; crops of another size are counted apart.
    """

    def __init__(self) -> None:
        self._sums: dict[tuple[int, ...], list[Any]] = {}

    def add(self, crop: NDArray[np.float32]) -> None:
        """Add the probabilities of a crop: (z, y, x, K)."""
        sums = self._sums.setdefault(crop.shape, [0, np.zeros(crop.shape, np.float32), 0.0])
        sums[0] += 1
        sums[1] += crop
        sums[2] += float(entropy(crop).mean(dtype=np.float64))

    @property
    def crops(self) -> int:
        """How many crops have enough others of their size."""
        return sum(count for count, _, _ in self._sums.values() if count >= FEWEST_CROPS)

    @property
    def information(self) -> float | None:
        """Mean over positions of H(mean over crops) - mean H, in nats; at most ln(crops).

        None where fewer than `FEWEST_CROPS` have one size.
        """
        if not self.crops:
            return None
        total = 0.0
        for count, sums, entropies in self._sums.values():
            if count >= FEWEST_CROPS:
                total += count * float(entropy(sums / count).mean(dtype=np.float64)) - entropies
        return total / self.crops
