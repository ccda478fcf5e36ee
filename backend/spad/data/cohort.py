"""A cohort: what training draws from, scans on their working grids with one list of labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch

from spad.data.frames import Spacing
from spad.volumes.intensity import CT, MR, Intensity, Limits


def model_contracts(ct_range: Sequence[float] = (CT.low, CT.high)) -> dict[str, Intensity]:
    """Give the contracts of the models that are trained here.

    CT becomes -1 to 1 by a range of HU; MR and all else by percentiles 0.5 to 99.5.
    """
    low, high = ct_range
    return {
        "CT": replace(CT, low=low, high=high, shift=0.5, scale=0.5),
        "MR": replace(MR, shift=0.5, scale=0.5),
        "*": replace(MR, shift=0.5, scale=0.5),
    }


@dataclass(frozen=True)
class Contract:
    """What preparing a scan needs of a card."""

    intensity: dict[str, Intensity]
    working_spacing: dict[str, Any] | None


class Voxels(Protocol):
    """The voxels of a scan, (C, D, H, W): a tensor, or a store's array that reads what is asked."""

    @property
    def shape(self) -> Sequence[int]:
        """Channels (1, those of the scan, or 3 of a picture in colour), depth, height and width."""

    def __getitem__(self, crop: Any) -> torch.Tensor:
        """Give `voxels[:, z0:z1, y0:y1, x0:x1]` in the stored type, of any kind that is real."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """One scan on the working grid.

    Attributes:
        name: folder and ID.
        modality: "CT", "MR", ... or None.
        image: (C, D, H, W) as stored, axes S->I, A->P, R->L with depth first; C is that of the
            scan's channels, 3 for a picture in colour.
        labels: (D, H, W) uint8 in the cohort's numbering, or None.
        known: labels that its annotators drew (cohort's numbering).
        centres: for each known label that occurs, (n, 3) voxels of it.
        da: degree of anisotropy of the working grid.
        phantom: whether it is made up.
        validation: whether it is kept out of training.
        limits: stored values that become 0 and 1 by the intensity contract, the same in all
            channels: those of a scan of several channels are stored in [0, 1], each by its own.
        span: of a scan of one channel stored in HU, percentiles 0.5 and 99.5; else None.
        weight: how often it is drawn, beside others.
        spacing: of the working grid, mm along depth, height and width.
        channel_modalities: of its channels; empty where all are of `modality`.
    """

    name: str
    modality: str | None
    image: Voxels
    labels: torch.Tensor | None
    known: tuple[int, ...]
    centres: dict[int, np.ndarray]
    da: int
    phantom: bool
    validation: bool
    limits: Limits = (0.0, 1.0)
    span: Limits | None = None
    weight: float = 1.0
    spacing: Spacing = (1.0, 1.0, 1.0)
    channel_modalities: tuple[str | None, ...] = ()

    def to(self, device: torch.device) -> Prepared:
        """The same scan on another device; one in a store stays there."""
        image, labels = self.image, self.labels
        return replace(
            self,
            image=image.to(device) if isinstance(image, torch.Tensor) else image,
            labels=None if labels is None else labels.to(device),
        )

    def unit(self, crop: torch.Tensor) -> torch.Tensor:
        """Bring stored values of a crop, any shape, to [0, 1] by the contract: float32."""
        low, high = self.limits
        return ((crop.float() - low) / (high - low)).clamp(0, 1)


@dataclass(frozen=True, eq=False)
class Cohort:
    """All scans of a run.

    Attributes:
        scans: train and validation scans.
        label_names: id -> name, the same for all scans; empty without labels.
        channels: names of the scans' channels; empty for scans of one channel.
    """

    scans: tuple[Prepared, ...]
    label_names: dict[int, str]
    channels: tuple[str, ...] = ()

    def part(self, validation: bool) -> list[Prepared]:
        """The scans for training, or those for validation (never phantoms)."""
        return [s for s in self.scans if s.validation == validation]

    def modalities(self) -> list[str]:
        """List the modalities of all channels of the real scans (of phantoms if there are none)."""
        real = [s for s in self.scans if not s.phantom] or list(self.scans)
        return sorted({m for s in real for m in (s.modality, *s.channel_modalities) if m})

    def modality_labels(self) -> dict[str, list[int]]:
        """List, for each modality, the labels of its real scans (of phantoms if there are none)."""
        real = [s for s in self.scans if not s.phantom] or list(self.scans)
        modalities = {s.modality for s in real if s.modality}
        return {
            m: sorted({i for s in real if s.modality == m for i in s.known})
            for m in sorted(modalities)
        }
