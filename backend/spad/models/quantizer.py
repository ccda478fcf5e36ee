"""The soft-token quantiser: a token is the mean of all codes, weighted by their probabilities.

Source: PUMIT, arXiv 2312.07630, equation 1.
"""

from __future__ import annotations

import torch
from torch import nn


class SoftTokenQuantizer(nn.Module):
    """Projects features to code logits and mixes the codebook by their softmax (temperature 1).

    Args:
        in_channels: width of the encoder's output.
        codes: size K of the codebook.
        code_dim: width of a code.
    """

    def __init__(self, in_channels: int, codes: int, code_dim: int) -> None:
        super().__init__()
        self.projection = nn.Linear(in_channels, codes)
        self.codebook = nn.Parameter(torch.empty(codes, code_dim).uniform_(-1 / codes, 1 / codes))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, z, y, x) -> (B, z, y, x, K)."""
        return self.projection(features.movedim(1, -1))

    def mix(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(B, z, y, x, K), each token's probabilities summing to one -> (B, code_dim, z, y, x)."""
        return (probabilities.to(self.codebook.dtype) @ self.codebook).movedim(-1, 1)
