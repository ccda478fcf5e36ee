"""What a task gives the engine: a model, its loss, how to judge it, and its card."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from torch import nn

from spad.checkpoints.card import Card
from spad.data.samples import Batch

Figures = dict[str, float]


class Task(Protocol):
    """One kind of training.

    Attributes:
        score: the validation figure by which the best checkpoint is chosen, the higher the better.
    """

    score: str

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""

    def loss(self, batch: Batch, progress: float) -> tuple[torch.Tensor, Figures]:
        """Loss of a batch and its terms; `progress` is the fraction of the run that is done."""

    def validate(self, batches: Sequence[Batch]) -> Figures:
        """Figures on fixed batches of scans that are not trained on."""

    def sample(self, batch: Batch) -> np.ndarray:
        """Show what the model makes of a batch: (H, W, 3) uint8, a row for each sample."""

    def card(self, step: int) -> Card:
        """The card of the model after `step` updates."""


def to_model_range(image: torch.Tensor, channels: int) -> torch.Tensor:
    """[0, 1] gray (B, 1, D, H, W) -> [-1, 1] with the model's number of channels."""
    return (2 * image - 1).expand(-1, channels, -1, -1, -1)
