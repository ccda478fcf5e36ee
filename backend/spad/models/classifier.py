"""Classification of whole scans: a linear layer on the class token of SPAD-ViT.

Source: PUMIT, arXiv 2312.07630, section "classification" (MedMNIST v2).
"""

from __future__ import annotations

import torch
from torch import nn

from spad.models.vit import SpatialViT


class Classifier(nn.Module):
    """SPAD-ViT with a linear head.

    Args:
        vit: constructor arguments of `SpatialViT`.
        classes: number of classes.
    """

    def __init__(self, vit: dict[str, object], classes: int) -> None:
        super().__init__()
        self.vit = SpatialViT(**vit)  # type: ignore[arg-type]
        self.architecture = {"vit": self.vit.architecture, "classes": classes}
        self.head = nn.Linear(self.vit.dim, classes)

    def forward(self, x: torch.Tensor, da: int) -> torch.Tensor:
        """(B, C, D, H, W) -> logits (B, classes)."""
        return self.head(self.vit(x, da)[:, 0])
