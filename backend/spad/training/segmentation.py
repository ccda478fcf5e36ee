"""Fine-tuning for organs, on scans in which only some organs may have been labelled.

Source: PUMIT, arXiv 2312.07630, section "segmentation".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from spad.checkpoints.card import Card
from spad.data.cohort import Cohort
from spad.data.samples import Batch, window_crop
from spad.losses.segmentation import deep_supervision_loss, merge_unlabelled
from spad.models.baselines import comparable
from spad.training.pictures import gray, middle, overlaid, sheet
from spad.training.recipe import Recipe
from spad.training.task import Figures, JudgedTask, Terms, to_model_range


class SegmentationTask(JudgedTask):
    """See `Task`."""

    def __init__(self, recipe: Recipe, card: Card, cohort: Cohort) -> None:
        self.names = cohort.label_names
        self.model = _network(recipe, cohort)
        super().__init__(card)
        self._balance = recipe.loss.balance

    def loss(self, batch: Batch, progress: float) -> tuple[torch.Tensor, Terms]:
        """See `Task`."""
        assert batch.labels is not None and batch.known is not None
        heads = self.model(to_model_range(batch.image, self.model.in_channels), batch.da)
        loss = deep_supervision_loss(
            *(heads, batch.labels, batch.known),
            complete=batch.complete,
            balance=self._balance,
        )
        return loss, {}

    def sample(self, batch: Batch) -> np.ndarray:
        """Scan, labels that people drew and labels that the model finds."""
        assert batch.labels is not None and batch.known is not None
        logits = self.model(to_model_range(batch.image, self.model.in_channels), batch.da)[0]
        found = merge_unlabelled(logits.float(), batch.known).argmax(1)
        scans = [gray(part) for part in middle(batch.image[:, 0])]
        drawn = [
            [overlaid(*pair, self.names) for pair in zip(scans, middle(labels), strict=True)]
            for labels in (batch.labels, found)
        ]
        return sheet([scans, *drawn])

    def score(self, figures: Figures, progress: float) -> float:
        """See `Task`."""
        return figures["dice"]

    def validate(self, batches: Sequence[Batch]) -> Figures:
        """Dice of each label over all voxels of the batches, and the mean over those that occur."""
        classes = len(self.names) + 1
        overlap, total = torch.zeros(classes), torch.zeros(classes)
        for batch in batches:
            assert batch.labels is not None and batch.known is not None
            logits = self.model(to_model_range(batch.image, self.model.in_channels), batch.da)[0]
            found = merge_unlabelled(logits.float(), batch.known).argmax(1).cpu()
            wanted = batch.labels.cpu()
            overlap += torch.bincount(found[found == wanted], minlength=classes)
            total += torch.bincount(found.flatten(), minlength=classes)
            total += torch.bincount(wanted.flatten(), minlength=classes)
        dice = {
            name: (2 * overlap[i] / total[i]).item()
            for i, name in self.names.items()
            if total[i] > 0
        }
        self._judged = {
            "dice": sum(dice.values()) / max(1, len(dice)),
            **{f"dice_{name}": d for name, d in dice.items()},
        }
        return self._judged


def _network(recipe: Recipe, cohort: Cohort) -> Any:
    """Build the recipe's network for the scans' labels and their median spacing."""
    scans = cohort.part(validation=False)
    scans = [scan for scan in scans if not scan.phantom] or scans
    spacing = np.median([scan.spacing for scan in scans], axis=0)
    da = int(np.median([scan.da for scan in scans]))
    window = window_crop(da, recipe.data.window)
    return comparable(recipe.model, len(cohort.label_names) + 1, window, spacing.tolist())
