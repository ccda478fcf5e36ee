"""What a task gives the engine: a model, its loss, how to judge it, and its card."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from spad.checkpoints.card import Card

Figures = dict[str, float]
Terms = dict[str, torch.Tensor | float]


class Task(Protocol):
    """One kind of training; its batches are of a kind of its own."""

    @property
    def model(self) -> nn.Module:
        """The model that is trained."""

    @property
    def critic(self) -> nn.Module | None:
        """What is trained against the model, or None."""

    def loss(self, batch: Any, progress: float) -> tuple[torch.Tensor, Terms]:
        """Loss of a batch and its terms; `progress` is the fraction of the run that is done."""

    def critic_loss(self) -> tuple[torch.Tensor, Terms]:
        """Loss of the critic on the batch that `loss` saw last."""

    def validate(self, batches: Sequence[Any]) -> Figures:
        """Figures on fixed batches of scans that are not trained on."""

    def score(self, figures: Figures, progress: float) -> float:
        """Judge a checkpoint by its validation figures: the best is the one with the highest."""

    def sample(self, batch: Any) -> np.ndarray:
        """Show what the model makes of a batch: (H, W, 3) uint8, a row for each sample."""

    def alarm(self, figures: Figures, progress: float) -> str | None:
        """Say in one sentence why a run with these validation figures is hopeless, if it is."""

    def state(self) -> dict[str, float]:
        """Give what a resumed run needs beside weights and optimisers."""

    def take_up(self, state: Mapping[str, float]) -> None:
        """Take what `state` gave."""

    def card(self, step: int) -> Card:
        """The card of the model after `step` updates."""


class PlainTask:
    """What a task is that has no critic, no alarm and nothing to remember."""

    critic: nn.Module | None = None

    def critic_loss(self) -> tuple[torch.Tensor, Terms]:
        """See `Task`."""
        raise TypeError(f"{type(self).__name__} has no critic.")

    def alarm(self, figures: Figures, progress: float) -> str | None:
        """See `Task`."""
        return None

    def state(self) -> dict[str, float]:
        """See `Task`."""
        return {}

    def take_up(self, state: Mapping[str, float]) -> None:
        """See `Task`."""


class JudgedTask(PlainTask):
    """One whose card tells the figures of the last validation.

    Args:
        card: of the model, without them.
    """

    def __init__(self, card: Card) -> None:
        self._card = card
        self._judged: Figures = {}

    def card(self, step: int) -> Card:
        """See `Task`."""
        figures = {name: round(value, 4) for name, value in self._judged.items()}
        return dataclasses.replace(
            self._card,
            provenance=self._card.provenance | {"steps": step},
            validation={"held_out": figures} if figures else {},
        )

    def state(self) -> Figures:
        """See `Task`: the figures of the last validation."""
        return dict(self._judged)

    def take_up(self, state: Mapping[str, float]) -> None:
        """See `Task`."""
        self._judged = dict(state)


def to_model_range(image: torch.Tensor, channels: int) -> torch.Tensor:
    """[0, 1] (B, C, D, H, W), gray or in colour -> [-1, 1] with the model's number of channels."""
    if image.shape[1] > channels:
        image = image.mean(1, keepdim=True)
    return (2 * image - 1).expand(-1, channels, -1, -1, -1)
