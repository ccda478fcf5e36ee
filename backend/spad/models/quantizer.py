"""Quantisers: how an encoder's features become code probabilities, and these an embedding.

Source: PUMIT, arXiv 2312.07630, equation 1 (soft tokens); van den Oord et al. 2017 (nearest code);
Jang et al. 2017 (Gumbel).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from spad.errors import SpadError

MODES = ("soft", "gumbel", "nearest")
COMMITMENT = 0.25
"""Weight of the pull of features towards their code, in the mode "nearest"."""


class Quantized(NamedTuple):
    """What training sees of a batch.

    Attributes:
        embedding: (B, code_dim, z, y, x), what the decoder gets.
        logits: (B, z, y, x, K), whose softmax the regulariser sees.
        commitment: a scalar to add to the loss; 0 but in the mode "nearest".
    """

    embedding: torch.Tensor
    logits: torch.Tensor
    commitment: torch.Tensor


class Quantizer(nn.Module):
    """Projects features to code logits and mixes the codebook by their probabilities.

    Args:
        in_channels: width of the encoder's output.
        codes: size K of the codebook.
        code_dim: width of a code.
        mode: "soft": a token is the mean of all codes by their softmax (temperature 1), the same in
            training and afterwards. "gumbel": one code, drawn by Gumbel noise in training, soft
            afterwards. "nearest": the code next to the projected features, straight-through.
        codebook_bound: codes begin uniform in +- this; 1 / codes when None, which is the authors'.
    """

    def __init__(
        self,
        in_channels: int,
        codes: int,
        code_dim: int,
        mode: str = "soft",
        codebook_bound: float | None = None,
    ) -> None:
        if mode not in MODES:
            raise SpadError(
                f"The quantizer {mode!r} is not known; expected one of {', '.join(MODES)}; correct "
                "--model.quantizer."
            )
        super().__init__()
        self.mode = mode
        self.projection = nn.Linear(in_channels, code_dim if mode == "nearest" else codes)
        bound = codebook_bound or 1 / codes
        self.codebook = nn.Parameter(torch.empty(codes, code_dim).uniform_(-bound, bound))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        """(B, C, z, y, x) -> (B, z, y, x, K); in the mode "nearest" minus the squared distances."""
        projected = self.projection(features.movedim(1, -1))
        return self._closeness(projected) if self.mode == "nearest" else projected

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Code probabilities after training, float32, from logits (..., K)."""
        if self.mode == "nearest":
            return F.one_hot(logits.argmax(-1), logits.shape[-1]).float()
        return F.softmax(logits.float(), dim=-1)

    def mix(self, probabilities: torch.Tensor) -> torch.Tensor:
        """(B, z, y, x, K), each token's probabilities summing to one -> (B, code_dim, z, y, x)."""
        return (probabilities.to(self.codebook.dtype) @ self.codebook).movedim(-1, 1)

    def forward(self, features: torch.Tensor, temperature: float | torch.Tensor) -> Quantized:
        """Quantise a batch.

        Args:
            features: (B, C, z, y, x).
            temperature: of the Gumbel distribution; the other modes have none.
        """
        nothing = features.new_zeros((), dtype=torch.float32)
        if self.mode != "nearest":
            logits = self.logits(features)
            drawn = self.mode == "gumbel" and self.training
            p = _one_drawn(logits, temperature) if drawn else self.probabilities(logits)
            return Quantized(self.mix(p), logits, nothing)
        projected = self.projection(features.movedim(1, -1)).float()
        logits = self._closeness(projected)
        chosen = F.embedding(logits.argmax(-1), self.codebook).float()
        commitment = F.mse_loss(chosen, projected.detach())
        commitment = commitment + COMMITMENT * F.mse_loss(projected, chosen.detach())
        straight = projected + (chosen - projected).detach()
        return Quantized(straight.movedim(-1, 1), logits, commitment)

    def _closeness(self, projected: torch.Tensor) -> torch.Tensor:
        z, codes = projected.float(), self.codebook.float()
        product = torch.matmul(z, codes.T)
        return 2 * product - z.square().sum(-1, keepdim=True) - codes.square().sum(-1)


def _one_drawn(logits: torch.Tensor, temperature: float | torch.Tensor) -> torch.Tensor:
    """Draw one code for each token, straight-through (the softmax of the noisy logits)."""
    noise = -torch.empty_like(logits, dtype=torch.float32).exponential_().log()
    soft = F.softmax((logits.float() + noise) / temperature, dim=-1)
    hard = F.one_hot(soft.argmax(-1), soft.shape[-1]).to(soft.dtype)
    return hard + soft - soft.detach()
