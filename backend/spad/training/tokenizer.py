"""Training of SPAD-VT: reconstruction by L1, then the prior-distribution regulariser.

Source: PUMIT, arXiv 2312.07630, equations 1 to 5.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from spad.checkpoints.card import Card
from spad.data.samples import Batch
from spad.losses.prior import prior_regulariser, prior_terms
from spad.models.tokenizer import Tokenizer
from spad.training.pictures import gray, middle, sheet
from spad.training.recipe import Recipe
from spad.training.task import Figures, to_model_range


class TokenizerTask:
    """See `Task`."""

    score = "psnr"

    def __init__(self, recipe: Recipe, card: Card) -> None:
        self.model = Tokenizer(**recipe.model)
        self.recipe = recipe
        self._card = card

    def card(self, step: int) -> Card:
        """See `Task`."""
        return self._card

    def warm_up(self, progress: float) -> float:
        """Weight of the regulariser, 0 to 1: reconstruction is learnt first."""
        loss = self.recipe.loss
        return min(
            1.0,
            max(0.0, (progress - loss.prior_start) / max(1e-9, loss.prior_full - loss.prior_start)),
        )

    def loss(self, batch: Batch, progress: float) -> tuple[torch.Tensor, Figures]:
        """See `Task`."""
        x = to_model_range(batch.image, self.model.in_channels)
        reconstruction, logits = self.model(x, batch.da)
        l1 = F.l1_loss(reconstruction.float(), x)
        terms = prior_terms(logits)
        prior = prior_regulariser(
            terms,
            divergence_weight=self.recipe.loss.divergence,
            entropy_weight=self.recipe.loss.entropy,
            warm_up=self.warm_up(progress),
        )
        figures = {
            "l1": l1.item() / 2,
            "usage_entropy": terms.usage_entropy.item(),
            "mean_entropy": terms.entropy.item(),
            "position_information": terms.position_information.item(),
            "prior_weight": self.warm_up(progress),
        }
        return l1 + prior, figures

    def sample(self, batch: Batch) -> np.ndarray:
        """Scan, reconstruction and four times their difference."""
        x = to_model_range(batch.image, self.model.in_channels)
        found = (self.model(x, batch.da)[0].float().mean(1) + 1) / 2
        scans, again = middle(batch.image[:, 0]), middle(found)
        errors = [4 * np.abs(one - other) for one, other in zip(scans, again, strict=True)]
        return sheet([[gray(part) for part in column] for column in (scans, again, errors)])

    def validate(self, batches: Sequence[Batch]) -> Figures:
        """L1 and PSNR (range 1), codes used, and the entropies of the code distribution in nats."""
        l1, square, tokens = [], [], []
        for batch in batches:
            x = to_model_range(batch.image, self.model.in_channels)
            reconstruction, logits = self.model(x, batch.da)
            error = (reconstruction.float().clamp(-1, 1) - x) / 2
            l1.append(error.abs().mean())
            square.append(error.square().mean())
            tokens.append(F.softmax(logits.float(), -1).flatten(0, -2))
        p = torch.cat(tokens)
        usage = p.mean(0)
        return {
            "l1": torch.stack(l1).mean().item(),
            "psnr": -10 * torch.stack(square).mean().log10().item(),
            "codes_used": float(p.argmax(-1).unique().numel()),
            "usage_entropy": torch.special.entr(usage).sum().item(),
            "mean_entropy": torch.special.entr(p).sum(-1).mean().item(),
        }
