"""Training of SPAD-VT: reconstruction, the prior-distribution regulariser, and a discriminator.

Source: PUMIT, arXiv 2312.07630, equations 1 to 5.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from spad.checkpoints.card import Card
from spad.data.samples import Batch
from spad.evaluation.usage import Positions
from spad.losses.adversarial import Gate, adaptive_weight, critic_loss, generator_loss
from spad.losses.perceptual import Perceptual, drawn_slices
from spad.losses.prior import prior_regulariser, prior_terms
from spad.models.discriminator import PatchDiscriminator
from spad.models.tokenizer import Tokenizer
from spad.training.alarms import collapse
from spad.training.pictures import gray, middle, sheet
from spad.training.recipe import Recipe
from spad.training.task import Figures, Terms, to_model_range

HOTTEST, COLDEST = 0.9, 1e-6
"""Temperature of Gumbel noise at the start and at the end of a run."""
_UNREGULARISED = 1000.0
SETTLING = 0.1
"""Fraction of a run after the regulariser has its full weight before its alarms count."""


class TokenizerTask:
    """See `Task`."""

    def __init__(self, recipe: Recipe, card: Card) -> None:
        self.model = Tokenizer(**recipe.model)
        self.recipe = recipe
        self._card = card
        loss = recipe.loss
        self._perceptual: Perceptual | None = None
        if loss.perceptual:
            self._perceptual = Perceptual(loss.perceptual_weights)
            self._perceptual.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._gate = Gate(loss.adversarial_gate)
        self._seen: tuple[torch.Tensor, torch.Tensor, int] | None = None
        channels = self.model.in_channels
        self.critic: nn.Module | None = None
        if loss.adversarial:
            self.critic = PatchDiscriminator(channels, loss.critic_channels)

    def card(self, step: int) -> Card:
        """See `Task`."""
        return self._card

    def state(self) -> dict[str, float]:
        """See `Task`: the gate of the adversarial term."""
        return {"gate_mean": self._gate.mean, "gate_last": self._gate.last}

    def take_up(self, state: Mapping[str, float]) -> None:
        """See `Task`."""
        self._gate.mean, self._gate.last = state["gate_mean"], state["gate_last"]

    def warm_up(self, progress: float) -> float:
        """Weight of the regulariser, 0 to 1: reconstruction is learnt first."""
        loss = self.recipe.loss
        return min(
            1.0,
            max(0.0, (progress - loss.prior_start) / max(1e-9, loss.prior_full - loss.prior_start)),
        )

    def _temperature(self, progress: float) -> float | torch.Tensor:
        """Give the temperature of Gumbel noise, as a tensor: torch compiles anew for numbers."""
        return torch.tensor(temperature(progress)) if self.model.quantizer.mode == "gumbel" else 1.0

    def loss(self, batch: Batch, progress: float) -> tuple[torch.Tensor, Terms]:
        """See `Task`."""
        x = to_model_range(batch.image, self.model.in_channels)
        found = self.model(x, batch.da, self._temperature(progress))
        l1 = F.l1_loss(found.image.float(), x)
        terms = prior_terms(found.logits)
        weights, warm_up = self.recipe.loss, self.warm_up(progress)
        prior = prior_regulariser(
            terms,
            divergence_weight=weights.divergence,
            entropy_weight=weights.entropy,
            warm_up=warm_up,
        )
        figures: Terms = {
            "l1": l1.detach() / 2,
            "usage_entropy": terms.usage_entropy,
            "mean_entropy": terms.entropy.detach(),
            "position_information": terms.position_information,
            "prior_weight": warm_up,
        }
        total = l1 + prior + found.commitment
        if self._perceptual is not None:
            distance = self._distance(x, found.image, batch)
            total = total + weights.perceptual * distance
            figures["perceptual"] = distance.detach()
        if self.critic is not None:
            total = total + self._adversarial(total, x, found.image, batch.da, figures)
        return total, figures

    def _distance(self, x: torch.Tensor, rebuilt: torch.Tensor, batch: Batch) -> torch.Tensor:
        assert self._perceptual is not None
        seeds = np.random.SeedSequence([self.recipe.seed, batch.step, batch.first, 0x51CE])
        generator = torch.Generator().manual_seed(int(seeds.generate_state(1)[0]))
        slices = drawn_slices(len(x), x.shape[2], generator)
        return self._perceptual.to(x.device)(x, rebuilt, slices)

    def _adversarial(
        self,
        rest: torch.Tensor,
        x: torch.Tensor,
        rebuilt: torch.Tensor,
        da: int,
        figures: Terms,
    ) -> torch.Tensor:
        """Give the weighted adversarial term, 0 while its gate is shut."""
        assert self.critic is not None
        self._seen = (x, rebuilt.detach(), da)
        weights = self.recipe.loss
        if not self._gate.is_open:
            figures |= {"adversarial": 0.0, "adversarial_weight": 0.0}
            return rest.new_zeros(())
        self.critic.requires_grad_(False)
        term = generator_loss(self.critic(rebuilt, da))
        self.critic.requires_grad_(True)
        weight = rest.new_tensor(weights.adversarial)
        if weights.adversarial_adaptive:
            last = self.model.decoder[-1].weight
            weight = weight * adaptive_weight(rest, term, last)  # type: ignore[arg-type]
        figures |= {"adversarial": term.detach(), "adversarial_weight": weight}
        return weight * term

    def critic_loss(self) -> tuple[torch.Tensor, Terms]:
        """See `Task`; scans and reconstructions in one pass, so that kernels are summed once."""
        assert self.critic is not None
        assert self._seen is not None
        x, rebuilt, da = self._seen
        self._seen = None
        real, fake = self.critic(torch.cat([x, rebuilt.to(x.dtype)]), da).chunk(2)
        loss = critic_loss(real, fake)
        self._gate.see(loss)
        return loss, {"critic": loss.detach()}

    def sample(self, batch: Batch) -> np.ndarray:
        """Scan, reconstruction and four times their difference."""
        x = to_model_range(batch.image, self.model.in_channels)
        found = (self._rebuilt(x, batch.da)[0].mean(1) + 1) / 2
        scans, again = middle(batch.image.mean(1)), middle(found)
        errors = [4 * np.abs(one - other) for one, other in zip(scans, again, strict=True)]
        return sheet([[gray(part) for part in column] for column in (scans, again, errors)])

    def _rebuilt(self, x: torch.Tensor, da: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Reconstruct as after training: the image (B, C, D, H, W) and the probabilities."""
        found = self.model(x, da)
        return found.image.float(), self.model.quantizer.probabilities(found.logits)

    def validate(self, batches: Sequence[Batch]) -> Figures:
        """L1 and PSNR (range 1), how the codes are used, and entropies in nats.

        `position_information` is that over all crops of a size, left out where they are few.
        """
        l1, square, tokens, positions = [], [], [], Positions()
        for batch in batches:
            x = to_model_range(batch.image, self.model.in_channels)
            reconstruction, p = self._rebuilt(x, batch.da)
            error = (reconstruction.clamp(-1, 1) - x) / 2
            l1.append(error.abs().mean())
            square.append(error.square().mean())
            for crop in p.cpu().numpy():
                positions.add(crop)
            tokens.append(p.flatten(0, -2))
        p = torch.cat(tokens)
        usage = p.mean(0)
        usage_entropy = torch.special.entr(usage).sum().item()
        figures = {
            "l1": torch.stack(l1).mean().item(),
            "psnr": -10 * torch.stack(square).mean().log10().item(),
            "codes_used": float(p.argmax(-1).unique().numel()),
            "usage_entropy": usage_entropy,
            "mean_entropy": torch.special.entr(p).sum(-1).mean().item(),
            "perplexity": math.exp(usage_entropy),
            "most_over_least": (usage.max() / usage.min().clamp_min(1e-12)).item(),
            "tokens": float(len(p)),
        }
        if positions.information is not None:
            figures["position_information"] = positions.information
        return figures

    def score(self, figures: Figures, progress: float) -> float:
        """See `Task`: PSNR, but a model that is not yet regularised loses to any that is."""
        return figures["psnr"] - _UNREGULARISED * (1 - self.warm_up(progress))

    def alarm(self, figures: Figures, progress: float) -> str | None:
        """See `Task`; a regulariser that is still rising is given time."""
        if progress < min(self.recipe.loss.prior_full + SETTLING, 1.0):
            return None
        return collapse(figures, self.model.codes, int(figures["tokens"]))


def temperature(progress: float) -> float:
    """Temperature of Gumbel noise at a fraction of the run: a cosine from 0.9 to 1e-6."""
    return COLDEST + (HOTTEST - COLDEST) * (1 + math.cos(math.pi * progress)) / 2
