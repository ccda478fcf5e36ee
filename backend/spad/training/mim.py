"""Masked-image pre-training of SPAD-ViT on a frozen tokenizer's soft tokens.

Source: PUMIT, arXiv 2312.07630, equation 6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F

from spad.checkpoints import file, zoo
from spad.checkpoints.card import Card
from spad.data.samples import Batch
from spad.errors import SpadError
from spad.losses.masked import MaskedTerms, masked_terms, random_mask
from spad.models.tokenizer import Tokenizer
from spad.models.vit import MaskedImageModel
from spad.training.pictures import gray, middle, sheet
from spad.training.recipe import Recipe
from spad.training.task import Figures, PlainTask, Terms, to_model_range


class MaskedImageTask(PlainTask):
    """See `Task`."""

    def __init__(self, recipe: Recipe, card: Card) -> None:
        self.tokenizer: Tokenizer = file.load(zoo.find(recipe.tokenizer).path, kind="tokenizer")[0]
        self.tokenizer.requires_grad_(False)
        self.model = MaskedImageModel(**recipe.model)
        if self.model.architecture["codes"] != self.tokenizer.codes:
            raise SpadError(
                f"The recipe predicts {self.model.architecture['codes']} codes, but the "
                f"tokenizer {recipe.tokenizer!r} "
                f"has {self.tokenizer.codes}; set --model.codes {self.tokenizer.codes}."
            )
        self.recipe = recipe
        self._card = card

    def card(self, step: int) -> Card:
        """See `Task`."""
        return self._card

    def _predict(self, batch: Batch) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Give predicted logits (B, L, K), the tokenizer's probabilities and which are masked."""
        self.tokenizer.to(batch.image.device)
        with torch.no_grad():
            x = to_model_range(batch.image, self.tokenizer.in_channels)
            target = self.tokenizer.probabilities(x, batch.da).flatten(1, 3)
        tokens, ratio, start = target.shape[1], self.recipe.mask_ratio, batch.first
        seeds = [[self.recipe.seed, batch.step, start + n, 0x3A5C] for n in range(len(target))]
        masks = [random_mask(tokens, ratio, np.random.default_rng(seed)) for seed in seeds]
        masked = torch.from_numpy(np.stack(masks)).to(target.device)
        x = to_model_range(batch.image, self.model.vit.in_channels)
        return self.model(x, batch.da, masked), target, masked

    def _terms(self, batch: Batch) -> MaskedTerms:
        return masked_terms(*self._predict(batch))

    def sample(self, batch: Batch) -> np.ndarray:
        """Scan, scan with the hidden tokens left out, and with what the model fills in there."""
        predicted, target, masked = self._predict(batch)
        filled = torch.where(masked[..., None], F.softmax(predicted.float(), -1), target)
        size = batch.image.shape[2:]
        factors = self.tokenizer.token_factors(batch.da)
        grid = [-(-n // factor) for n, factor in zip(size, factors, strict=True)]
        found = self.tokenizer.decode(filled.unflatten(1, grid), batch.da, size)
        hidden = masked.unflatten(1, grid).float()[:, None]
        hidden = F.interpolate(hidden, scale_factor=[float(n) for n in factors])[:, 0]
        hidden = hidden[:, : size[0], : size[1], : size[2]]
        scan = batch.image.mean(1)
        columns = (scan, scan * (1 - hidden), (found.mean(1) + 1) / 2)
        return sheet([[gray(part) for part in middle(column)] for column in columns])

    def loss(self, batch: Batch, progress: float) -> tuple[torch.Tensor, Terms]:
        """See `Task`."""
        terms = self._terms(batch)
        return terms.cross_entropy, {"kl": terms.divergence.detach()}

    def score(self, figures: Figures, progress: float) -> float:
        """See `Task`."""
        return -figures["cross_entropy"]

    def validate(self, batches: Sequence[Batch]) -> Figures:
        """Cross entropy and divergence at masked tokens, in nats."""
        terms = [self._terms(batch) for batch in batches]
        cross_entropy = torch.stack([t.cross_entropy for t in terms]).mean().item()
        divergence = torch.stack([t.divergence for t in terms]).mean().item()
        return {
            "cross_entropy": cross_entropy,
            "kl": divergence,
        }
